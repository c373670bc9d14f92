"""Speed and memory beside other libraries and beside what the machine allows."""

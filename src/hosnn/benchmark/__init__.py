"""Speed and memory compared with other libraries and with what the machine allows."""

"use strict";
// One neuron on one image: current, membrane, threshold, signature and spikes over time.
// Texts enter the page by textContent only, so that no name in the data is markup.
(() => {
  const data = JSON.parse(document.getElementById("samples").textContent);
  const select = Object.fromEntries(
    ["layer", "neuron", "image", "condition"].map((name) => [name, document.getElementById("choose-" + name)])
  );
  const plots = document.getElementById("plots");
  const SVG = "http://www.w3.org/2000/svg";
  const CLEAN = 0; // the first condition
  const MARGIN = { left: 52, right: 12, top: 8, bottom: 26 };
  const LABEL = 52; // smallest distance between two labels of the time axis, px

  function fill(list, names) {
    list.replaceChildren(
      ...names.map((name, number) => {
        const option = document.createElement("option");
        option.value = String(number);
        option.textContent = name;
        return option;
      })
    );
  }

  function html(name, text, kind) {
    const node = document.createElement(name);
    node.textContent = text;
    if (kind) node.className = kind;
    return node;
  }

  function svg(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  // Round numbers that divide [low, high] into three to six parts.
  function ticks(low, high) {
    const power = 10 ** Math.floor(Math.log10((high - low) / 3));
    const step = [5, 2, 1].map((factor) => factor * power).find((size) => (high - low) / size >= 3) || power;
    const values = [];
    for (let number = Math.ceil(low / step); number * step <= high; number++) values.push(number * step);
    return values;
  }

  function label(value) {
    return String(Number(value.toPrecision(3)));
  }

  function frame(title, height) {
    const width = plots.clientWidth;
    const figure = document.createElement("figure");
    figure.className = "plot";
    figure.append(html("figcaption", title));
    plots.append(figure);
    const picture = svg(figure, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    const inner = width - MARGIN.left - MARGIN.right;
    const x = (t) => MARGIN.left + inner * (data.steps > 1 ? t / (data.steps - 1) : 0.5);
    const bottom = height - MARGIN.bottom;
    const every = Math.max(1, Math.ceil(data.steps / Math.max(1, inner / LABEL)));
    for (let t = 0; t < data.steps; t += every) {
      svg(picture, "line", { class: "tick", x1: x(t), x2: x(t), y1: bottom, y2: bottom + 4 });
      svg(picture, "text", { x: x(t), y: bottom + 17, "text-anchor": "middle" }, t + 1);
    }
    return { figure, picture, x, bottom, width };
  }

  function curves(title, series) {
    const shown = series.filter((line) => line.values);
    const { figure, picture, x, bottom, width } = frame(title, 220);
    const numbers = shown.flatMap((line) => line.values).filter((value) => value !== null);
    let low = Math.min(0, ...numbers);
    let high = Math.max(0, ...numbers);
    if (low === high) high = low + 1;
    const room = (high - low) * 0.05;
    low -= room;
    high += room;
    const y = (value) => bottom - ((bottom - MARGIN.top) * (value - low)) / (high - low);
    for (const value of ticks(low, high)) {
      svg(picture, "line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) });
      svg(picture, "text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, label(value));
    }
    const legend = html("p", "", "legend");
    for (const line of shown) {
      let path = "";
      line.values.forEach((value, t) => {
        if (value !== null) path += `${t && line.values[t - 1] !== null ? "L" : "M"}${x(t)} ${y(value)}`;
      });
      svg(picture, "path", { class: "line " + line.kind, d: path });
      if (data.steps <= 40) {
        line.values.forEach((value, t) => {
          if (value !== null) svg(picture, "circle", { class: "dot " + line.kind, cx: x(t), cy: y(value), r: 2.5 });
        });
      }
      const entry = html("span", "");
      const swatch = svg(entry, "svg", { width: 28, height: 10, "aria-hidden": "true" });
      svg(swatch, "path", { class: "line " + line.kind, d: "M0 5L28 5" });
      entry.append(" " + line.name);
      legend.append(entry);
    }
    figure.append(legend);
  }

  function spikes(title, rows) {
    const { picture, x, bottom } = frame(title, MARGIN.top + MARGIN.bottom + 26 * rows.length);
    rows.forEach((row, number) => {
      const top = MARGIN.top + 26 * number;
      svg(picture, "text", { x: MARGIN.left - 8, y: top + 15, "text-anchor": "end" }, row.name);
      row.values.forEach((value, t) => {
        if (value) svg(picture, "line", { class: "spike " + row.kind, x1: x(t), x2: x(t), y1: top + 3, y2: top + 21 });
      });
    });
    svg(picture, "line", { class: "tick", x1: x(0), x2: x(data.steps - 1), y1: bottom, y2: bottom });
  }

  function table(columns) {
    const head = document.createElement("tr");
    head.append(html("th", "step"), ...columns.map((column) => html("th", column.name)));
    const rows = Array.from({ length: data.steps }, (_, t) => {
      const row = document.createElement("tr");
      const cells = columns.map((column) => html("td", column.values[t] === null ? "–" : column.values[t]));
      row.append(html("th", t + 1), ...cells);
      return row;
    });
    document.getElementById("values-head").replaceChildren(head);
    document.getElementById("values").replaceChildren(...rows);
  }

  function count(values) {
    const number = values.filter((value) => value).length;
    return number === 1 ? "1 spike" : `${number} spikes`;
  }

  function draw() {
    const [layer, image] = [data.layers[select.layer.value], data.images[select.image.value]];
    const [neuron, condition] = [Number(select.neuron.value), Number(select.condition.value)];
    const run = (name, which) => layer[name][which][select.image.value][neuron];
    const disturbed = condition !== CLEAN;
    const line = (name, kind, which) => ({ name: which === condition ? name : name + ", clean", kind, values: run(kind, which) });
    const both = (name, kind) =>
      disturbed
        ? [{ ...line(name, kind, CLEAN), kind: kind + " pale" }, line(name, kind, condition)]
        : [line(name, kind, condition)];
    const signature = { name: "signature u*", kind: "signature", values: layer.signature && layer.signature[neuron] };
    const height = plots.offsetHeight;
    plots.style.minHeight = `${height}px`; // so that the page does not jump while the plots are replaced
    plots.replaceChildren();
    curves("Current, potential per step", both("current I", "current"));
    curves("Membrane before reset, threshold and signature, in resting thresholds", [
      signature,
      ...both("threshold θ", "threshold"),
      ...both("membrane u", "membrane"),
    ]);
    const rows = [{ name: "spikes", kind: "membrane", values: run("spikes", condition) }];
    if (disturbed) rows.push({ name: "clean", kind: "membrane pale", values: run("spikes", CLEAN) });
    spikes("Spikes, by time step", rows);
    plots.style.minHeight = "";
    const columns = ["current", "membrane", "threshold"].map((name) => ({ name, values: run(name, condition) }));
    if (signature.values) columns.push({ name: "signature", values: signature.values });
    table([...columns, { name: "spikes", values: run("spikes", condition) }]);
    const fired = count(run("spikes", condition)) + (disturbed ? ` (clean: ${count(run("spikes", CLEAN))})` : "");
    document.getElementById("state").textContent =
      `${fired} in ${data.steps} steps. The network predicts ${image.predictions[condition]}; ` +
      `the label is ${image.label}.`;
  }

  function changeLayer() {
    fill(select.neuron, data.layers[select.layer.value].neurons);
    draw();
  }

  document.getElementById("explorer").hidden = false;
  fill(select.layer, data.layers.map((layer) => layer.name));
  fill(select.image, data.images.map((image) => image.name));
  fill(select.condition, data.conditions);
  select.layer.addEventListener("change", changeLayer);
  for (const name of ["neuron", "image", "condition"]) select[name].addEventListener("change", draw);
  changeLayer();
  let width = plots.clientWidth;
  new ResizeObserver(() => {
    if (plots.clientWidth !== width) {
      width = plots.clientWidth;
      draw();
    }
  }).observe(plots);
})();

"use strict";
// Draw the curves of report.html as SVG, one element for each chart. All charts share the visible range of x.
// Values: hover, or arrow keys. Zoom: drag, or + and -; back: double click, or 0. Logarithmic scale: the button, or l.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const xs = data.x, NS = "http://www.w3.org/2000/svg", TOP = 12, BOTTOM = 24, RIGHT = 10, NEAREST = 10;
  const whole = [xs[0], xs[xs.length - 1]];
  let view = whole;
  const charts = [];

  function element(name, attributes, parent, text) {
    const svg = ["svg", "path", "line", "text", "circle", "rect", "g", "clipPath"].includes(name);
    const made = svg ? document.createElementNS(NS, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function shown(value) {
    if (value === null) return "not finite";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2).replace(/\.?0*e\+?/, "e");
    return String(Number(value.toPrecision(5)));
  }

  // The labels of an axis are all plain numbers or, where one has many digits, all powers of ten with as many decimals.
  function labels(marks) {
    const sizes = marks.map(Math.abs).filter((size) => size !== 0);
    if (!sizes.some((size) => size >= 1e5 || size < 1e-3)) return marks.map(shown);
    const digits = (tick) => tick.toExponential(2).replace(/0*e.*/, "").split(".")[1].length;
    const most = Math.max(...marks.map(digits));
    return marks.map((tick) => (tick === 0 ? "0" : tick.toExponential(most).replace("e+", "e")));
  }

  // Ticks at 1, 2 or 5 times a power of ten.
  function ticks(low, high, most) {
    const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(12)));
    return found;
  }

  function logTicks(low, high) {
    const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
    if (to - from <= 1 && high / low < 4) return ticks(low, high, 5);
    const steps = to - from <= 3 ? [1, 2, 5] : [1], stride = Math.max(1, Math.ceil((to - from) / 7)), found = [];
    for (let p = from; p <= to; p += stride) for (const k of steps) {
      const tick = Number((k * 10 ** p).toPrecision(3));
      if (tick >= low * 0.999 && tick <= high * 1.001) found.push(tick);
    }
    return found;
  }

  // Few curves have colors of their own, many a ramp in the order of the columns: layers by depth.
  function color(i, count, name) {
    if (name === "val") return "var(--c1)";
    if (count <= 6) return `var(--c${i})`;
    return `color-mix(in oklab, var(--c0), var(--c1) ${Math.round((100 * i) / (count - 1))}%)`;
  }

  class Chart {
    constructor(spec, parent) {
      this.spec = spec;
      this.at = null;  // the position of the cursor in xs
      this.clip = `clip-${charts.length}`;
      this.start = null;  // where a drag began, in pixels
      this.hidden = new Set();
      this.inks = spec.series.map((s, i) => color(i, spec.series.length, s.name));
      const values = spec.series.flatMap((s) => s.values).filter((v) => v !== null);
      const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
      this.positive = high > 0;
      this.log = low > 0 && high / low > 1000 && spec.title !== "lr";
      this.figure = element("figure", { class: "chart" }, parent);
      const head = element("figcaption", {}, this.figure);
      element("b", {}, head, spec.title);
      if (this.positive) this.button = this.toggle(head, "log", this.log, () => this.setLog(!this.log), "Logarithmic scale");
      this.svg = element("svg", { tabindex: 0, role: "img", "aria-label": this.label(values.length ? [low, high] : []) }, this.figure);
      this.tip = element("div", { class: "tip", role: "status", hidden: "" }, this.figure);
      if (spec.series.length > 1) this.legend();
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.figure);
    }

    label(range) {
      const names = this.spec.series.map((s) => s.name).join(", ").slice(0, 300);
      return `${this.spec.title} by epoch (${names})` + (range.length ? `, from ${shown(range[0])} to ${shown(range[1])}` : "");
    }

    toggle(parent, text, pressed, act, title = "") {
      const button = element("button", { type: "button", "aria-pressed": pressed, title }, parent, text);
      button.addEventListener("click", act);
      return button;
    }

    legend() {
      const list = element("div", { class: "legend" }, this.figure);
      this.spec.series.forEach((series, i) => {
        const button = this.toggle(list, "", true, () => {
          this.hidden.has(i) ? this.hidden.delete(i) : this.hidden.add(i);
          button.setAttribute("aria-pressed", !this.hidden.has(i));
          this.draw();
        }, "Show or hide this curve");
        element("i", { style: `background:${this.inks[i]}` }, button);
        button.append(series.name);
      });
    }

    setLog(log) {
      if (!this.positive) return;
      this.log = log;
      this.button.setAttribute("aria-pressed", log);
      this.draw();
    }

    // The smallest and largest value in view.
    range() {
      let low = Infinity, high = -Infinity;
      this.spec.series.forEach((series, s) => {
        if (!this.hidden.has(s)) series.values.forEach((v, i) => {
          if (!this.drawable(v) || xs[i] < view[0] || xs[i] > view[1]) return;
          low = Math.min(low, v);
          high = Math.max(high, v);
        });
      });
      if (low > high) return [this.log ? 0.1 : 0, 1];
      if (low === 0 && high === 0) return [0, 1];
      if (low === high) return this.log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
      const margin = 0.04 * (high - low);
      return this.log ? [low / 1.1, high * 1.1] : [low - margin, high + margin];
    }

    drawable(value) {
      return value !== null && (!this.log || value > 0);
    }

    draw() {
      const width = this.figure.clientWidth, height = Math.round(Math.min(260, Math.max(180, 0.55 * width)));
      if (!width) return;
      this.svg.replaceChildren();
      this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.svg.setAttribute("height", height);
      const [low, high] = this.range(), scale = this.log ? Math.log10 : (v) => v;
      const marks = this.log ? logTicks(low, high) : ticks(low, high, 5);
      const texts = labels(marks);
      this.left = 14 + 7 * Math.max(...texts.map((text) => text.length), 2);
      this.right = width - RIGHT;
      this.bottom = height - BOTTOM;
      this.x = (v) => this.left + ((v - view[0]) / (view[1] - view[0] || 1)) * (this.right - this.left);
      this.y = (v) => this.bottom - ((scale(v) - scale(low)) / (scale(high) - scale(low))) * (this.bottom - TOP);
      marks.forEach((tick, i) => {
        element("line", { class: "grid", x1: this.left, x2: this.right, y1: this.y(tick), y2: this.y(tick) }, this.svg);
        element("text", { x: this.left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, this.svg, texts[i]);
      });
      const below = ticks(view[0], view[1], Math.max(2, width / 90)), names = labels(below);
      below.forEach((tick, i) => element("text", { x: this.x(tick), y: height - 6, "text-anchor": "middle" }, this.svg, names[i]));
      const clip = element("clipPath", { id: this.clip }, this.svg);
      element("rect", { x: this.left, y: 0, width: Math.max(0, this.right - this.left), height: this.bottom + 2 }, clip);
      if (data.best !== null && data.best >= view[0] && data.best <= view[1])
        element("line", { class: "best", x1: this.x(data.best), x2: this.x(data.best), y1: TOP, y2: this.bottom }, this.svg);
      this.spec.series.forEach((series, i) => { if (!this.hidden.has(i)) this.curve(series, i); });
      this.marker = element("g", {}, this.svg);
      this.band = element("rect", { class: "band", y: TOP, height: this.bottom - TOP, width: 0 }, this.svg);
      this.point();
    }

    curve(series, number) {
      const ink = this.inks[number];
      const inside = xs.map((x, i) => i).filter((i) => (xs[i + 1] ?? xs[i]) >= view[0] && (xs[i - 1] ?? xs[i]) <= view[1]);
      const good = (i) => i >= 0 && i < xs.length && this.drawable(series.values[i]);
      let path = "";
      for (const i of inside) {
        if (!good(i)) continue;
        const [x, y] = [this.x(xs[i]).toFixed(1), this.y(series.values[i]).toFixed(1)];
        path += `${good(i - 1) && path ? "L" : "M"}${x} ${y}`;
        const alone = !good(i - 1) && !good(i + 1), seen = xs[i] >= view[0] && xs[i] <= view[1];
        if (seen && (alone || inside.length <= 30)) element("circle", { cx: x, cy: y, r: 2.2, style: `fill:${ink}` }, this.svg);
      }
      element("path", { class: "curve", d: path, style: `stroke:${ink}`, "clip-path": `url(#${this.clip})` }, this.svg);
    }

    // Show the values at the cursor; with many curves those nearest to the pointer.
    point(height = null) {
      this.marker?.replaceChildren();
      this.tip.hidden = this.at === null;
      if (this.at === null || !this.x) return;
      const x = this.x(xs[this.at]);
      element("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.bottom }, this.marker);
      let seen = this.spec.series.map((s, i) => ({ name: s.name, value: s.values[this.at], i })).filter((s) => !this.hidden.has(s.i));
      if (seen.length > NEAREST) {
        const far = (s) => (this.drawable(s.value) ? Math.abs(this.y(s.value) - (height ?? TOP)) : Infinity);
        seen = seen.sort((a, b) => far(a) - far(b)).slice(0, NEAREST);
      }
      this.tip.replaceChildren();
      element("b", {}, this.tip, `epoch ${shown(xs[this.at])}`);
      for (const { name, value, i } of seen) {
        const ink = this.inks[i], line = element("div", {}, this.tip);
        if (this.drawable(value)) element("circle", { cx: x, cy: this.y(value), r: 4, style: `fill:${ink}` }, this.marker);
        element("i", { style: `background:${ink}` }, line);
        line.append(`${name} `);
        element("span", {}, line, shown(value));
      }
      const left = x > this.figure.clientWidth / 2 ? x - this.tip.offsetWidth - 12 : x + 12;
      this.tip.style.left = `${Math.max(0, left)}px`;
      this.tip.style.top = `${this.svg.previousElementSibling.offsetHeight + TOP}px`;
    }

    nearest(pixel) {
      let best = null;
      xs.forEach((x, i) => {
        if (x < view[0] || x > view[1]) return;
        if (best === null || Math.abs(this.x(x) - pixel) < Math.abs(this.x(xs[best]) - pixel)) best = i;
      });
      return best;
    }

    value(pixel) {
      const share = (pixel - this.left) / (this.right - this.left);
      return view[0] + Math.min(1, Math.max(0, share)) * (view[1] - view[0]);
    }

    listen() {
      const inside = (event) => event.clientX - this.svg.getBoundingClientRect().left;
      this.svg.addEventListener("pointerdown", (event) => { if (event.button === 0) this.start = inside(event); });
      this.svg.addEventListener("pointermove", (event) => {
        const pixel = inside(event);
        this.at = this.nearest(pixel);
        this.point(event.clientY - this.svg.getBoundingClientRect().top);
        if (this.start === null || event.pointerType === "touch") return;
        if (Math.abs(pixel - this.start) > 4) this.svg.setPointerCapture(event.pointerId);
        this.band.setAttribute("x", Math.min(pixel, this.start));
        this.band.setAttribute("width", Math.abs(pixel - this.start));
      });
      this.svg.addEventListener("pointerup", (event) => {
        const [from, to] = [this.start, inside(event)].sort((a, b) => a - b);
        const dragged = this.start !== null && to - from > 8 && event.pointerType !== "touch";
        this.start = null;
        this.band.setAttribute("width", 0);
        if (dragged) zoom(this.value(from), this.value(to));
      });
      this.svg.addEventListener("pointercancel", () => { this.start = null; });
      this.svg.addEventListener("pointerleave", () => { this.at = null; this.point(); });
      this.svg.addEventListener("blur", () => { this.at = null; this.point(); });
      this.svg.addEventListener("dblclick", () => zoom(...whole));
      this.svg.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const inView = xs.map((x, i) => i).filter((i) => xs[i] >= view[0] && xs[i] <= view[1]);
      const first = inView[0] ?? 0, last = inView[inView.length - 1] ?? 0, at = this.at ?? last;
      const center = xs[at], half = (view[1] - view[0]) / 2;
      const actions = {
        ArrowLeft: () => { this.at = Math.max(first, this.at === null ? last : at - 1); },
        ArrowRight: () => { this.at = Math.min(last, this.at === null ? first : at + 1); },
        Home: () => { this.at = first; },
        End: () => { this.at = last; },
        "+": () => zoom(center - half / 2, center + half / 2),
        "-": () => zoom(center - 2 * half, center + 2 * half),
        0: () => zoom(...whole),
        Escape: () => { this.at = null; },
        l: () => this.setLog(!this.log),
      };
      const action = actions[event.key === "=" ? "+" : event.key];
      if (!action) return;
      event.preventDefault();
      action();
      this.point();
    }
  }

  function zoom(from, to) {
    const next = [Math.max(whole[0], from), Math.min(whole[1], to)];
    if (xs.filter((x) => x >= next[0] && x <= next[1]).length < 2) return;
    view = next[0] === whole[0] && next[1] === whole[1] ? whole : next;
    charts.forEach((chart) => chart.draw());
  }

  for (const spec of data.charts) {
    const place = document.querySelector(`[data-charts="${spec.place}"]`);
    if (place) charts.push(new Chart(spec, place));
  }
})();

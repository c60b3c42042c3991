"use strict";
// Configure uPlot for the charts of a report: curves over epochs, the score over each axis of a sweep, parallel coordinates.
// Values: hover, or arrow keys. Zoom of all curves: drag, or + and -; back: double click, or 0. Logarithmic scale: the button, or l.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = [], FEW = 10, WORDS = 8, FONT = '12px system-ui, -apple-system, "Segoe UI", sans-serif', FADED = "28";
  const theme = getComputedStyle(document.documentElement), ratio = () => devicePixelRatio || 1;
  const css = (name) => theme.getPropertyValue(`--${name}`).trim();
  const WHOLE = [...Array(10).keys()].flatMap((p) => [1, 2, 5].map((k) => k * 10 ** p));
  let whole = null, view = null;

  function element(name, attributes, parent, text) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function toggle(parent, text, pressed, act, title) {
    const button = element("button", { type: "button", "aria-pressed": pressed, title }, parent, text);
    button.addEventListener("click", act);
    return button;
  }

  function shown(value) {
    if (value === null || value === undefined) return "not finite";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2).replace(/\.?0*e\+?/, "e");
    return String(Number(value.toPrecision(5)));
  }

  // The labels of an axis are all plain numbers or, where one has many digits, all powers of ten with as many decimals.
  function labels(marks) {
    const known = marks.filter((mark) => mark !== null), sizes = known.map(Math.abs).filter((size) => size !== 0);
    const text = (mark, made) => (mark === null ? "" : made(mark));
    if (!sizes.some((size) => size >= 1e5 || size < 1e-3)) return marks.map((mark) => text(mark, shown));
    const digits = (tick) => tick.toExponential(2).replace(/0*e.*/, "").split(".")[1].length;
    const most = Math.max(...known.map(digits));
    return marks.map((mark) => text(mark, (tick) => (tick === 0 ? "0" : tick.toExponential(most).replace("e+", "e"))));
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

  // An axis of values; an end with values beyond it has a label that says so.
  function values(log, { range, cut } = {}) {
    const edge = cut && range[cut === "≥" ? 1 : 0];
    const far = (u, k, tick) => !cut || Math.abs(u.valToPos(tick, u.axes[k].scale) - u.valToPos(edge, u.axes[k].scale)) > 16;
    return {
      splits: (u, k, low, high) => [...(log ? logTicks : ticks)(low, high, 5).filter((tick) => far(u, k, tick)), ...(cut ? [edge] : [])],
      filter: (u, splits) => splits,
      values: (u, splits) => labels(cut ? splits.slice(0, -1) : splits).concat(cut ? `${cut} ${shown(Number(edge.toPrecision(3)))}` : []),
      size: (u, texts) => 18 + wide(texts ?? []),
    };
  }

  const pen = document.createElement("canvas").getContext("2d");

  // The width of the widest text.
  function wide(texts) {
    pen.font = FONT;
    return Math.ceil(Math.max(14, ...texts.map((text) => pen.measureText(text).width)));
  }

  const brief = (value) => shown(Number(value.toPrecision(3)));
  const shortened = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

  // The color at a share of the ramp in the styles.
  function ramp(share) {
    const stops = css("ramp").split(","), at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at)), parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
    const [low, high] = [parts(stops[k]), parts(stops[k + 1])];
    return `#${low.map((v, i) => Math.round(v + (at - k) * (high[i] - v)).toString(16).padStart(2, "0")).join("")}`;
  }

  // Where a value is on an axis of a sweep, from 0 to 1. The values of an axis with labels are their numbers.
  function share(axis, value) {
    if (axis.labels) return axis.labels.length > 1 ? value / (axis.labels.length - 1) : 0.5;
    const scale = axis.log ? Math.log : (v) => v;
    return (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low) || 1);
  }

  // Few words have colors of their own; numbers, and many words, a ramp in their order.
  function inkOn(axis, value) {
    if (value === null) return css("dot");
    const words = axis.labels && axis.labels.length <= WORDS && axis.labels.some((label) => !Number.isFinite(Number(label)));
    return words ? css(`c${value}`) : ramp(share(axis, value));
  }

  // What all charts have: a figure with a head, a plot that takes the focus, and the values at the cursor.
  class Chart {
    constructor(parent, title, label, kind = "") {
      this.hot = null;  // the curve that is pointed at
      this.figure = element("figure", { class: `chart ${kind}` }, parent);
      this.head = element("figcaption", {}, this.figure);
      if (title) element("b", {}, this.head, title);
      this.plot = element("div", { class: "plot", tabindex: 0, role: "img", "aria-label": label }, this.figure);
      this.tip = element("div", { class: "tip", role: "status", hidden: "" }, this.figure);
      this.plot.addEventListener("keydown", (event) => this.key(event));
      this.plot.addEventListener("blur", () => this.u.setCursor({ left: -10, top: -10 }));
      this.plot.addEventListener("pointermove", (event) => this.touch(event));
      charts.push(this);
    }

    start() {
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    draw() {
      const width = this.plot.clientWidth, [least, share, most] = this.figure.classList.contains("wide") ? [280, 0.4, 440] : [190, 0.55, 260];
      const height = Math.round(Math.min(most, Math.max(least, share * width))), card = this.figure.closest("section");
      card.classList.toggle("scrolls", card.scrollWidth > card.clientWidth);
      if (!width || (this.u && this.u.width === width)) return;
      this.u ? this.u.setSize({ width, height }) : this.build(width, height);
    }

    redraw() {
      this.u?.destroy();
      this.u = null;
      this.draw();
    }

    build(width, height) {
      const { cursor, axes, hooks, ...options } = this.options();
      this.u = new uPlot({
        width, height, legend: { show: false },
        cursor: { y: false, bind: { dblclick: () => () => zoom(...whole) }, drag: { x: false, setScale: false }, ...cursor },
        axes: axes.map((axis) => ({ font: FONT, stroke: css("soft"), gap: 6, ticks: { show: false },
          grid: { stroke: css("line"), width: 1 }, values: (u, splits) => labels(splits), ...axis })),
        hooks: { setCursor: [(u) => this.point(u)], ...hooks },
        ...options,
      }, this.rows(), this.plot);
    }

    // A finger that moves over a chart shows its values; upwards it scrolls the page.
    touch(event) {
      if (event.pointerType !== "touch") return;
      const box = this.u.over.getBoundingClientRect();
      this.u.setCursor({ left: event.clientX - box.left, top: event.clientY - box.top });
    }

    // Fade all curves but one.
    heat(number) {
      if (this.hot === number) return;
      this.hot = number;
      this.u.redraw(false, false);
    }

    faded(color, number) {
      return this.hot === null || this.hot === number ? color : color + FADED;
    }

    // Show a head and lines of color, name and value beside a place in the plot.
    tell(head, lines, left, top) {
      this.tip.hidden = false;
      this.tip.replaceChildren(element("b", {}, null, head));
      for (const [color, name, value] of lines) {
        const line = element("div", {}, this.tip);
        if (color) element("i", { style: `background:${color}` }, line);
        line.append(`${name} `);
        element("span", {}, line, value);
      }
      const x = this.u.over.offsetLeft + left, width = this.figure.clientWidth;
      const beside = left > this.u.over.clientWidth / 2 ? x - this.tip.offsetWidth - 14 : x + 14;
      this.tip.style.left = `${Math.max(0, Math.min(width - this.tip.offsetWidth, beside))}px`;
      this.tip.style.top = `${this.plot.offsetTop + Math.max(0, top)}px`;
    }

    actions() {
      return {};
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const away = { Escape: () => this.u.setCursor({ left: -10, top: -10 }) };
      const action = { ...away, ...this.actions() }[event.key === "=" ? "+" : event.key];
      if (!action) return;
      event.preventDefault();
      action();
    }
  }

  // The values of several curves over epochs, with bands where they are means. Those of a sweep are colored by one of its axes.
  class Lines extends Chart {
    constructor(spec, parent) {
      const names = spec.series.map((series) => series.name).join(", ").slice(0, 300);
      super(parent, spec.title, `${spec.title} by ${data.unit ?? "epoch"} (${names})`, spec.wide ? "wide" : "");
      this.spec = spec;
      this.table = uPlot.join(spec.series.map((s) => [s.x ?? data.x, s.values, ...(s.low ? [s.low, s.high] : [])]));
      this.xs = this.table[0];
      this.columns = [];
      let next = 1;
      for (const series of spec.series) {
        this.columns.push(next);
        next += series.low ? 3 : 1;
      }
      const values = this.columns.flatMap((k) => this.table[k]).filter((v) => v !== null && v !== undefined);
      const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
      if (values.length) this.plot.setAttribute("aria-label", `${this.plot.getAttribute("aria-label")}, from ${shown(low)} to ${shown(high)}`);
      this.log = spec.log ?? (low > 0 && high / low > 1000 && spec.title !== "lr");
      this.hidden = new Set();
      this.single = spec.axes !== undefined;
      this.axis = data.axes?.[spec.axes?.[0]];
      if (high > 0) this.button = toggle(this.head, "log", this.log, () => this.setLog(!this.log), "Logarithmic scale");
      if (spec.axes?.length) this.choice();
      if (spec.series.length > 1) this.legend = element("div", { class: "legend" }, this.figure);
      this.start();
    }

    // A list of the axes of the sweep to color by.
    choice() {
      const label = element("label", {}, null, "color ");
      const list = element("select", {}, label);
      this.spec.axes.forEach((k) => element("option", { value: k }, list, data.axes[k].name));
      list.addEventListener("change", () => {
        this.axis = data.axes[list.value];
        this.redraw();
      });
      this.head.insertBefore(label, this.button ?? null);
    }

    at(series) {
      return series.at[data.axes.indexOf(this.axis)];
    }

    ink(number) {
      const series = this.spec.series[number], count = this.spec.series.length;
      if (this.axis) return inkOn(this.axis, this.at(series));
      if (series.name === "val") return css("c1");
      return count <= WORDS ? css(`c${number}`) : ramp(number / (count - 1));
    }

    // Buttons that hide a curve, or all curves of a value of the axis; a bar of colors where the axis has no labels.
    key_of_colors() {
      this.legend?.replaceChildren();
      if (!this.legend) return;
      if (this.single && !this.axis) return;
      if (this.axis && !this.axis.labels) return colorBar(this.legend, brief(this.axis.low), brief(this.axis.high), this.axis.name);
      const groups = new Map();
      this.spec.series.forEach((series, i) => {
        const value = this.axis ? this.at(series) : i;
        const name = this.axis ? this.axis.labels[value] ?? "none" : series.name;
        if (!groups.has(value)) groups.set(value, { name, numbers: [], ink: this.ink(i), dash: series.dash });
        groups.get(value).numbers.push(i);
      });
      for (const [, { name, numbers, ink }] of [...groups].sort(([a], [b]) => a - b)) {
        const button = toggle(this.legend, "", !numbers.every((i) => this.hidden.has(i)), () => {
          const hide = !numbers.every((i) => this.hidden.has(i));
          numbers.forEach((i) => this.hidden[hide ? "add" : "delete"](i));
          button.setAttribute("aria-pressed", !hide);
          this.u.batch(() => numbers.forEach((i) => this.parts(i).forEach((k) => this.u.setSeries(k, { show: !hide }))));
        }, "Show or hide");
        element("i", { style: `background:${ink}` }, button);
        button.append(name);
      }
    }

    // The columns of a curve: its values and, where it is a mean, the ends of its band.
    parts(number) {
      const k = this.columns[number];
      return this.spec.series[number].low ? [k, k + 1, k + 2] : [k];
    }

    setLog(log) {
      if (!this.button) return;
      this.log = log;
      this.button.setAttribute("aria-pressed", log);
      this.redraw();
    }

    // Values that a logarithm does not have are gaps; those beyond a cut axis run along its edge.
    rows() {
      const [low, high] = this.isGiven() && (this.spec.cut || this.log) ? this.spec.range : [-Infinity, Infinity];
      const drawn = (v) => (v === null || v === undefined ? v : this.log && Math.max(low, v) <= 0 ? null : Math.min(high, Math.max(low, v)));
      return this.table.map((column, k) => (k ? column.map(drawn) : column));
    }

    isGiven() {
      return this.spec.range !== undefined && this.log === Boolean(this.spec.log);
    }

    range(low, high) {
      if (this.isGiven()) return padded(this.spec.range, this.log);
      if (low === null || low > high) return this.log ? [0.1, 1] : [0, 1];
      if (low === 0 && high === 0) return [0, 1];
      if (low === high) return this.log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
      const margin = 0.04 * (high - low);
      return this.log ? [low / 1.1, high * 1.1] : [low - margin, high + margin];
    }

    options() {
      this.key_of_colors();
      const series = [{}], bands = [], banded = this.spec.series.filter((spec) => spec.low).length;
      this.spec.series.forEach((spec, i) => {
        const ink = () => this.faded(this.ink(i), i), show = !this.hidden.has(i), k = this.columns[i];
        const alone = (column) => column.map((v, j) => j).filter((j) => Number.isFinite(column[j]) && !Number.isFinite(column[j - 1]) && !Number.isFinite(column[j + 1]));
        series.push({
          show, stroke: ink, width: spec.best ? 3 : this.spec.series.length > FEW ? 1.2 : 1.8, dash: spec.dash,
          points: { size: spec.best ? 6 : 5, width: 0, fill: ink, show: (u, n, from, to) => to - from < 30 && this.spec.series.length <= FEW,
            filter: (u, n, all) => (all ? null : alone(u.data[n])) },
        });
        if (!spec.low) return;
        series.push(...[0, 1].map(() => ({ show, stroke: "#0000", width: 0, points: { show: false } })));
        bands.push({ series: [k + 2, k + 1], fill: () => ((this.hot === null ? spec.best || !this.single : this.hot === i) ? this.ink(i) + (banded > 3 && !this.single ? "14" : FADED) : "#0000") });
      });
      return {
        series, bands, padding: [10, 12, 0, 0],
        scales: { x: { time: false, range: () => view }, y: { distr: this.log ? 3 : 1, range: (u, low, high) => this.range(low, high) } },
        axes: [{ grid: { show: false }, space: 60, size: 28, ...(this.xs.every(Number.isInteger) ? { incrs: WHOLE } : {}) }, values(this.log, this.isGiven() ? this.spec : {})],
        cursor: {
          drag: { x: true, y: false, setScale: false, dist: 8 },
          move: (u, left, top) => [left < 0 ? left : u.valToPos(this.xs[u.posToIdx(left)], "x"), top],
          points: this.single || this.spec.series.length > FEW ? { show: false } : { size: 9, width: 0 },
        },
        hooks: {
          draw: [(u) => this.marks(u)],
          setSelect: [(u) => {
            const { left, width } = u.select;
            u.setSelect({ left: 0, width: 0 }, false);
            if (width > 8) zoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
          }],
        },
      };
    }

    // The best evaluation, dashed.
    marks(u) {
      if (typeof data.best !== "number" || data.best < view[0] || data.best > view[1]) return;
      const x = Math.round(u.valToPos(data.best, "x", true));
      u.ctx.save();
      u.ctx.strokeStyle = css("best");
      u.ctx.lineWidth = ratio();
      u.ctx.setLineDash([3 * ratio(), 4 * ratio()]);
      u.ctx.beginPath();
      u.ctx.moveTo(x, u.bbox.top);
      u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
      u.ctx.restore();
    }

    // Show the values at the cursor: of all curves, of many those nearest to the pointer, in a sweep the nearest one.
    point(u) {
      const at = u.cursor.idx;
      this.tip.hidden = true;
      if (at === null || at === undefined || u.cursor.left < 0) return this.heat(null);
      const value = (i) => this.table[this.columns[i]][at];
      const far = (i) => (Number.isFinite(value(i)) ? Math.abs(u.valToPos(u.data[this.columns[i]][at] ?? NaN, "y") - u.cursor.top) : Infinity);
      let seen = this.spec.series.map((s, i) => i).filter((i) => !this.hidden.has(i) && value(i) !== undefined);
      const ordered = seen.length > FEW || this.single ? seen.map((i) => [far(i), i]).sort(([a], [b]) => a - b).map(([, i]) => i) : seen;
      seen = ordered.slice(0, this.single ? 1 : FEW);
      if (!seen.length) return this.heat(null);
      if (this.single || ordered.length > FEW) this.heat(seen[0]);
      const place = `${data.unit ?? "epoch"} ${shown(this.xs[at])}`, left = u.valToPos(this.xs[at], "x");
      this.tell(place, seen.map((i) => [this.ink(i), this.spec.series[i].name, this.number(i, at)]), left, this.single ? u.cursor.top : 10);
    }

    number(i, at) {
      const k = this.columns[i], ends = this.spec.series[i].low ? [this.table[k + 1][at], this.table[k + 2][at]] : [];
      return shown(this.table[k][at]) + (ends[1] > ends[0] ? ` ± ${brief((ends[1] - ends[0]) / 2)}` : "");
    }

    actions() {
      const { u, xs } = this, inView = xs.map((x, i) => i).filter((i) => xs[i] >= view[0] && xs[i] <= view[1]);
      const first = inView[0] ?? 0, last = inView[inView.length - 1] ?? 0, at = u.cursor.left >= 0 ? u.cursor.idx : null;
      const half = (view[1] - view[0]) / 2, center = xs[at ?? last];
      const go = (i, top = u.cursor.top) => u.setCursor({ left: u.valToPos(xs[Math.min(last, Math.max(first, i))], "x"), top: Math.max(0, top) });
      // the values stay those of the same x, once the chart is drawn again
      const see = (from, to) => {
        zoom(from, to);
        if (at !== null) queueMicrotask(() => u.setCursor({ left: u.valToPos(xs[at], "x"), top: u.cursor.top }));
      };
      return {
        ArrowLeft: () => go(at === null ? last : at - 1),
        ArrowRight: () => go(at === null ? first : at + 1),
        ...(this.single ? { ArrowUp: () => this.neighbor(-1, at ?? last, go), ArrowDown: () => this.neighbor(1, at ?? last, go) } : {}),
        Home: () => go(first),
        End: () => go(last),
        "+": () => see(center - half / 2, center + half / 2),
        "-": () => see(center - 2 * half, center + 2 * half),
        0: () => see(...whole),
        l: () => this.setLog(!this.log),
      };
    }

    // Go to the next curve above or below.
    neighbor(step, at, go) {
      const heights = this.columns.map((k, i) => (this.hidden.has(i) ? NaN : this.u.valToPos(this.u.data[k][at] ?? NaN, "y")));
      const tops = [...new Set(heights.filter(Number.isFinite))].sort((a, b) => a - b);
      const now = tops.findIndex((top) => Math.abs(top - (heights[this.hot] ?? NaN)) < 1e-9);
      if (tops.length) go(at, tops[Math.min(tops.length - 1, Math.max(0, now < 0 ? 0 : now + step))]);
    }
  }

  function write(u, text, x, y, align, color = css("soft")) {
    u.ctx.save();
    Object.assign(u.ctx, { font: FONT.replace("12px", `${12 * ratio()}px`), fillStyle: color, textAlign: align, textBaseline: "middle" });
    u.ctx.fillText(text, x, y);
    u.ctx.restore();
  }

  function colorBar(parent, low, high, name) {
    const bar = element("div", { class: "bar" }, parent);
    if (name) element("span", {}, bar, name);
    element("span", {}, bar, low);
    element("i", {}, bar);
    element("span", {}, bar, high);
  }

  const bounded = (score) => (data.objective.cut ? Math.min(data.objective.range[1], Math.max(data.objective.range[0], score)) : score);
  const about = ({ label, place, score, half }) => [`#${place}  ${label}`, [[null, data.objective.name, shown(score) + (half ? ` ± ${brief(half)}` : "")]]];

  // The score over one axis of a sweep, a dot for each configuration. Dots on a label are spread sideways.
  class Slice extends Chart {
    constructor(axis, k, parent) {
      super(parent, axis.name, `${data.objective.name} by ${axis.name}, one dot for each of ${data.configurations.length} configurations`);
      const spread = (i) => (axis.labels ? 0.36 * (((i * 0.618034) % 1) - 0.5) : 0);
      this.axis = axis;
      this.dots = data.configurations.map((spec, i) => ({ spec, x: spec.at[k] === null ? null : spec.at[k] + spread(i), y: bounded(spec.score) }));
      this.dots = this.dots.filter((dot) => dot.x !== null).sort((a, b) => a.x - b.x);
      this.start();
    }

    rows() {
      const pick = (best) => this.dots.map((dot) => (dot.spec.best === best ? dot.y : null));
      return [this.dots.map((dot) => dot.x), pick(false), pick(true)];
    }

    options() {
      const { axis } = this, { range, log } = data.objective, count = axis.labels?.length ?? 0;
      const every = Math.ceil(count / 12), texts = (axis.labels ?? []).map((label) => shortened(label, 14));
      const slanted = count > 0 && (wide(texts) + 10) * Math.ceil(count / every) > this.plot.clientWidth - 60;
      const [low, high] = axis.labels ? [-0.5, count - 0.5] : [axis.low, axis.high], margin = 0.04 * (high - low);
      const ends = axis.labels ? [low, high] : axis.log ? [low / (high / low) ** 0.04, high * (high / low) ** 0.04] : [low - margin, high + margin];
      const ticks = axis.labels ? {
        splits: () => texts.map((text, i) => i), values: () => texts.map((text, i) => (i % every ? null : text)), filter: (u, splits) => splits,
        rotate: slanted ? 35 : 0, size: slanted ? 26 + 0.6 * wide(texts) : 28,
      } : { ...values(axis.log), size: 28 };
      const dots = (size, color) => ({ paths: () => null, stroke: color, points: { show: true, size, width: 1, stroke: css("card"), fill: color } });
      return {
        padding: [10, 12, 0, 0], series: [{}, dots(8, `${css("c0")}b0`), dots(12, css("best"))],
        scales: { x: { time: false, range: () => ends, distr: axis.log ? 3 : 1 }, y: { range: () => padded(range, log), distr: log ? 3 : 1 } },
        axes: [{ grid: { show: false }, ...ticks }, values(log, data.objective)],
        cursor: { x: false, points: { show: false } },
      };
    }

    point(u) {
      this.tip.hidden = true;
      const away = ({ x, y }) => Math.hypot(u.valToPos(x, "x") - u.cursor.left, u.valToPos(y, "y") - u.cursor.top);
      const near = u.cursor.left < 0 ? null : this.dots.reduce((a, b) => (a && away(a) <= away(b) ? a : b), null);
      if (near && away(near) < 24) this.show(near);
      else this.seen = null;
    }

    show(dot) {
      this.seen = dot;
      this.tell(...about(dot.spec), this.u.valToPos(dot.x, "x"), this.u.valToPos(dot.y, "y"));
    }

    actions() {
      const at = this.dots.indexOf(this.seen), last = this.dots.length - 1;
      const go = (i) => {
        const dot = this.dots[Math.min(last, Math.max(0, i))];
        this.u.setCursor({ left: this.u.valToPos(dot.x, "x"), top: this.u.valToPos(dot.y, "y") });
        this.show(dot);
      };
      return { ArrowLeft: () => go(at < 0 ? last : at - 1), ArrowRight: () => go(at + 1), Home: () => go(0), End: () => go(last) };
    }
  }

  function padded([low, high], log) {
    return log ? [low / (high / low || 2) ** 0.05, high * (high / low || 2) ** 0.05] : [low - 0.05 * (high - low || 1), high + 0.05 * (high - low || 1)];
  }

  // Parallel coordinates: x is the number of an axis, each configuration a line over all axes to its score, colored by it.
  class Parallel extends Chart {
    constructor(parent) {
      const { axes, objective, configurations } = data;
      super(parent, "", `${configurations.length} configurations as lines over ${axes.map((axis) => axis.name).join(", ")} and ${objective.name}`, "wide");
      this.lines = [...configurations].reverse();  // the best is drawn last
      this.plot.style.minWidth = `${110 * (axes.length + 1)}px`;
      this.goal = { low: objective.range[0], high: objective.range[1], log: objective.log };
      this.quality = (spec) => (objective.mode === "min" ? 1 - share(this.goal, bounded(spec.score)) : share(this.goal, bounded(spec.score)));
      const ends = objective.range.map((value) => (objective.cut && value === objective.range[objective.cut === "≥" ? 1 : 0] ? `${objective.cut} ` : "") + brief(value));
      const bar = element("div", { class: "legend" }, this.figure);
      colorBar(bar, ...(objective.mode === "min" ? ends.reverse() : ends), objective.name);
      this.start();
    }

    rows() {
      const { axes } = data;
      const line = (spec) => [...axes.map((axis, k) => (spec.at[k] === null ? undefined : share(axis, spec.at[k]))), share(this.goal, bounded(spec.score))];
      return [[...axes.map((axis, k) => k), axes.length], ...this.lines.map(line)];
    }

    options() {
      const { axes, objective } = data, first = axes[0].labels?.map((label) => shortened(label, 16)) ?? labels([axes[0].low, axes[0].high]);
      const ink = (spec, i) => this.faded(spec.best ? css("best") : ramp(this.quality(spec)) + (this.hot === i ? "" : "b0"), i).slice(0, 9);
      return {
        series: [{}, ...this.lines.map((spec, i) => ({
          stroke: () => (this.hot === null || this.hot === i ? ink(spec, i) : css("dot") + FADED),
          width: spec.best ? 3 : this.lines.length > 100 ? 1 : 1.6, points: { show: false },
        }))],
        padding: [34, 0, 12, Math.max(18 + wide(first), wide([shortened(axes[0].name, 16)]) / 2 + 6)],
        scales: { x: { time: false, range: () => [0, axes.length] }, y: { range: () => [0, 1] },
          goal: { auto: false, range: () => objective.range, distr: objective.log ? 3 : 1 } },
        axes: [{ show: false }, { show: false }, { scale: "goal", side: 1, grid: { show: false }, ...values(objective.log, objective), size: (u, texts) => Math.max(18 + wide(texts ?? []), wide([objective.name]) / 2 + 6) }],
        cursor: { x: false, points: { show: false } },
        hooks: { drawClear: [(u) => this.bars(u)], draw: [(u) => this.texts(u)] },
      };
    }

    bars(u) {
      u.ctx.fillStyle = css("line");
      for (let k = 0; k <= data.axes.length; k++)
        u.ctx.fillRect(Math.round(u.valToPos(k, "x", true) - ratio()), u.bbox.top, 2 * ratio(), u.bbox.height);
    }

    // The names of the axes above them, and their labels: left of the first one, on a ground of their own right of the others.
    texts(u) {
      const r = ratio(), step = u.bbox.width / data.axes.length;
      const fit = (text) => {
        let most = text.length;
        while (most > 4 && wide([shortened(text, most)]) * r > step - 12 * r) most--;
        return shortened(text, most);
      };
      [...data.axes.map((axis) => axis.name), data.objective.name].forEach((name, k) => write(u, fit(name), u.valToPos(k, "x", true), u.bbox.top - 20 * r, "center", css("ink")));
      data.axes.forEach((axis, k) => {
        const x = u.valToPos(k, "x", true), every = Math.ceil((axis.labels?.length ?? 0) / 12);
        const marks = axis.labels ? axis.labels.map((text, i) => [i, text]).filter(([i]) => i % every === 0) : [axis.low, axis.high].map((v) => [v, shown(v)]);
        for (const [value, text] of marks) {
          const y = u.valToPos(share(axis, value), "y", true), label = shortened(text, 16);
          if (k === 0) write(u, label, x - 8 * r, y, "right");
          else ground(u, label, x + 7 * r, y);
        }
      });
    }

    // The nearest line at the height of the pointer.
    point(u) {
      this.tip.hidden = true;
      const { left, top } = u.cursor, x = u.posToVal(left, "x"), k = Math.min(data.axes.length - 1, Math.max(0, Math.floor(x)));
      if (left < 0) return this.heat(null);
      let near = null, least = 20;
      this.lines.forEach((spec, i) => {
        const [a, b] = [u.data[i + 1][k], u.data[i + 1][k + 1]];
        const away = Math.abs(u.valToPos((a ?? b) + (x - k) * ((b ?? a) - (a ?? b)), "y") - top);
        if (away <= least) [near, least] = [i, away];
      });
      if (near === null) this.heat(null);
      else this.show(near, left, top);
    }

    show(number, left, top) {
      this.heat(number);
      this.tell(...about(this.lines[number]), left, top);
    }

    // From the best line on, down the ranking.
    actions() {
      const last = this.lines.length - 1, now = this.hot;
      const go = (i) => {
        const number = Math.min(last, Math.max(0, i)), over = this.u.over;
        this.show(number, over.clientWidth, this.u.valToPos(this.u.data[number + 1][data.axes.length], "y"));
      };
      const next = () => go(now === null ? last : now - 1), before = () => go(now === null ? last : now + 1);
      return { ArrowRight: next, ArrowDown: next, ArrowLeft: before, ArrowUp: before, Home: () => go(last), End: () => go(0) };
    }
  }

  function ground(u, text, x, y) {
    const r = ratio();
    u.ctx.save();
    u.ctx.font = FONT.replace("12px", `${12 * r}px`);
    Object.assign(u.ctx, { fillStyle: css("card"), globalAlpha: 0.85 });
    u.ctx.fillRect(x - 3 * r, y - 8 * r, u.ctx.measureText(text).width + 6 * r, 16 * r);
    u.ctx.restore();
    write(u, text, x, y, "left");
  }

  // Show a part of x in all charts of curves.
  function zoom(from, to) {
    if (!whole) return;
    const next = [Math.max(whole[0], from), Math.min(whole[1], to)], lines = charts.filter((chart) => chart instanceof Lines);
    if (!lines.some((chart) => chart.xs.filter((x) => x >= next[0] && x <= next[1]).length > 1)) return;
    view = next[0] === whole[0] && next[1] === whole[1] ? whole : next;
    lines.forEach((chart) => chart.u?.setScale("x", { min: view[0], max: view[1] }));
  }

  const place = (name) => document.querySelector(`[data-charts="${name}"]`);
  for (const spec of data.charts ?? []) if (place(spec.place)) new Lines(spec, place(spec.place));
  const ends = charts.flatMap((chart) => [chart.xs[0], chart.xs[chart.xs.length - 1]]);
  if (ends.length) whole = view = Math.min(...ends) < Math.max(...ends) ? [Math.min(...ends), Math.max(...ends)] : [ends[0] - 0.5, ends[0] + 0.5];
  if (place("slices")) data.axes.forEach((axis, k) => new Slice(axis, k, place("slices")));
  if (place("parallel")) new Parallel(place("parallel"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw()));
})();

"use strict";
// Configure uPlot for the charts of a report: curves over epochs, the score over each axis of a sweep, parallel coordinates.
// Values: hover, or arrow keys. Zoom of all curves: drag, or + and -; back: double click, or 0. Logarithmic scale: the button, or l.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent), charts = [], unit = data.unit ?? "epoch";
  const FEW = 10, WORDS = 8, CROWD = 100, FADED = "28", FONT = '12px system-ui, -apple-system, "Segoe UI", sans-serif';
  const WHOLE = [...Array(10).keys()].flatMap((p) => [1, 2, 5].map((k) => k * 10 ** p));
  const theme = getComputedStyle(document.documentElement), pen = document.createElement("canvas").getContext("2d");
  const css = (name) => theme.getPropertyValue(`--${name}`).trim(), ratio = () => devicePixelRatio || 1;
  const shortened = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);
  const bounded = (value, low, high) => Math.min(high, Math.max(low, value));
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

  // Numbers ------------------------------------------------------------------------------------------------------------

  function shown(value) {
    if (value === null || value === undefined) return "not finite";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2).replace(/\.?0*e\+?/, "e");
    return String(Number(value.toPrecision(5)));
  }

  const brief = (value) => shown(Number(value.toPrecision(3)));

  // The labels of an axis are all plain numbers or, where one has many digits, all powers of ten with as many decimals.
  function labels(marks) {
    const sizes = marks.map(Math.abs).filter((size) => size !== 0);
    if (!sizes.some((size) => size >= 1e5 || size < 1e-3)) return marks.map(shown);
    const digits = (tick) => tick.toExponential(2).replace(/0*e.*/, "").split(".")[1].length;
    const most = Math.max(...marks.map(digits));
    return marks.map((tick) => (tick === 0 ? "0" : tick.toExponential(most).replace("e+", "e")));
  }

  // Ticks at 1, 2 or 5 times a power of ten, three at least.
  function ticks(low, high, most) {
    const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(12)));
    return found.length < 3 && low < high && most < 20 ? ticks(low, high, 2 * most) : found;
  }

  function logTicks(low, high) {
    const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
    if (to - from <= 1 && high / low < 4) return ticks(low, high, 5);
    const steps = to - from <= 3 ? [1, 2, 5] : [1], stride = Math.max(1, Math.ceil((to - from) / 7)), found = [];
    for (let p = from; p <= to; p += stride) for (const k of steps) {
      const tick = Number((k * 10 ** p).toPrecision(3));
      if (tick >= low * 0.999 && tick <= high * 1.001) found.push(tick);
    }
    return found.length < 3 ? ticks(low, high, 5) : found;
  }

  // A range with a margin.
  function padded([low, high], log, share = 0.04) {
    if (low === high) return log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
    return log ? [low / (high / low) ** share, high * (high / low) ** share] : [low - share * (high - low), high + share * (high - low)];
  }

  // Axes and colors ------------------------------------------------------------------------------------------------------

  // The width of the widest text.
  function widest(texts) {
    pen.font = FONT;
    return Math.ceil(Math.max(14, ...texts.map((text) => pen.measureText(text).width)));
  }

  // An axis of values; an end with values beyond it has a label that says so.
  function valueAxis(log, { range, cut } = {}) {
    const edge = cut && range[cut === "≥" ? 1 : 0];
    const apart = (u, scale, tick) => !cut || Math.abs(u.valToPos(tick, scale) - u.valToPos(edge, scale)) > 16;
    return {
      splits: (u, k, low, high) => [...(log ? logTicks : ticks)(low, high, 5).filter((tick) => apart(u, u.axes[k].scale, tick)), ...(cut ? [edge] : [])],
      filter: (u, splits) => splits,
      values: (u, splits) => (cut ? [...labels(splits.slice(0, -1)), `${cut} ${brief(edge)}`] : labels(splits)),
      size: (u, texts) => 18 + widest(texts ?? []),
    };
  }

  // The color at a share of the ramp in the styles.
  function ramp(share) {
    const stops = css("ramp").split(",").map((hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16)));
    const at = bounded(share, 0, 1) * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(at));
    const mixed = stops[k].map((v, i) => Math.round(v + (at - k) * (stops[k + 1][i] - v)));
    return `#${mixed.map((v) => v.toString(16).padStart(2, "0")).join("")}`;
  }

  // Where a value is on an axis of a sweep, from 0 to 1. The values of an axis with labels are the numbers of its labels.
  function share({ labels, low, high, log }, value) {
    if (labels) return labels.length > 1 ? value / (labels.length - 1) : 0.5;
    const scale = log ? Math.log : (v) => v;
    return (scale(value) - scale(low)) / (scale(high) - scale(low) || 1);
  }

  // Few words have colors of their own; numbers, and many words, a ramp in their order.
  function inkOn(axis, value) {
    if (value === null) return css("dot");
    const words = axis.labels?.length <= WORDS && axis.labels.some((label) => !Number.isFinite(Number(label)));
    return words ? css(`c${value}`) : ramp(share(axis, value));
  }

  function colorBar(parent, name, low, high) {
    const bar = element("div", { class: "bar" }, parent);
    for (const text of [name, low, null, high]) text === null ? element("i", {}, bar) : element("span", {}, bar, text);
  }

  function write(u, text, x, y, align, color) {
    Object.assign(u.ctx, { font: FONT.replace("12", String(12 * ratio())), fillStyle: css(color), textAlign: align, textBaseline: "middle" });
    u.ctx.fillText(text, x, y);
  }

  // Charts ---------------------------------------------------------------------------------------------------------------

  // What all charts have: a figure with a head, a plot that takes the focus, and the values at the cursor.
  class Chart {
    constructor(parent, title, label, isWide) {
      this.hot = null;  // the number of the curve that is pointed at
      this.sizes = isWide ? [280, 0.4, 440] : [190, 0.55, 260];
      this.figure = element("figure", { class: "chart" }, parent);
      this.head = element("figcaption", {}, this.figure);
      if (title) element("b", {}, this.head, title);
      this.plot = element("div", { class: "plot", tabindex: 0, role: "img", "aria-label": label }, this.figure);
      this.tip = element("div", { class: "tip", role: "status", hidden: "" }, this.figure);
      this.plot.addEventListener("keydown", (event) => this.key(event));
      this.plot.addEventListener("blur", () => this.leave());
      this.plot.addEventListener("pointermove", (event) => this.touch(event));
      charts.push(this);
    }

    // Drawing sets a height, which may not happen while sizes are being observed.
    watch() {
      new ResizeObserver(() => requestAnimationFrame(() => (this.draw(), markBoxes()))).observe(this.plot);
    }

    draw() {
      const width = this.plot.clientWidth, [least, part, most] = this.sizes;
      const height = Math.round(bounded(part * width, least, most));
      if (!width || this.u?.width === width) return;
      this.u ? this.u.setSize({ width, height }) : this.build(width, height);
    }

    redraw() {
      this.u?.destroy();
      this.u = null;
      this.draw();
    }

    build(width, height) {
      const { cursor, axes, hooks, ...options } = this.options();
      const common = { font: FONT, stroke: css("soft"), gap: 6, ticks: { show: false }, values: (u, splits) => labels(splits) };
      this.u = new uPlot({
        width, height, legend: { show: false },
        cursor: { y: false, bind: { dblclick: () => () => whole && zoom(...whole) }, drag: { x: false, setScale: false }, ...cursor },
        axes: axes.map((axis) => ({ ...common, grid: { stroke: css("line"), width: 1 }, ...axis })),
        hooks: { setCursor: [(u) => this.point(u)], ...hooks },
        ...options,
      }, this.rows(), this.plot);
    }

    leave() {
      this.u.setCursor({ left: -10, top: -10 });
    }

    // A finger that moves sideways over a chart shows its values.
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

    isFaded(number) {
      return this.hot !== null && this.hot !== number;
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
      const x = this.u.over.offsetLeft + left, room = this.figure.clientWidth - this.tip.offsetWidth;
      const beside = left > this.u.over.clientWidth / 2 ? x - this.tip.offsetWidth - 14 : x + 14;
      this.tip.style.left = `${bounded(beside, 0, Math.max(0, room))}px`;
      this.tip.style.top = `${this.plot.offsetTop + Math.max(0, top)}px`;
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const action = { Escape: () => this.leave(), ...this.actions() }[event.key === "=" ? "+" : event.key];
      if (!action) return;
      event.preventDefault();
      action();
    }
  }

  // Several curves over epochs, with bands where they are means. Those of a sweep are colored by one of its axes.
  class Lines extends Chart {
    constructor(spec, parent) {
      const names = spec.series.map((series) => series.name).join(", ").slice(0, 300);
      super(parent, spec.title, `${spec.title} by ${unit} (${names})`, spec.wide);
      this.spec = spec;
      this.count = spec.series.length;
      this.ofSweep = spec.axes !== undefined;
      this.axis = data.axes?.[spec.axes?.[0]];
      this.hidden = new Set();
      this.table = uPlot.join(spec.series.map((s) => [s.x ?? data.x, s.values, ...(s.low ? [s.low, s.high] : [])]));
      this.xs = this.table[0];
      // where the values of a curve are in the table, followed by the ends of its band
      this.columns = spec.series.map((s, i) => 1 + spec.series.slice(0, i).reduce((n, other) => n + (other.low ? 3 : 1), 0));
      const values = this.columns.flatMap((k) => this.table[k]).filter(Number.isFinite);
      const [low, high] = [Math.min, Math.max].map((pick) => values.reduce((a, b) => pick(a, b), values[0]));
      if (values.length) this.plot.ariaLabel += `, from ${shown(low)} to ${shown(high)}`;
      this.log = spec.log ?? (low > 0 && high / low > 1000 && spec.title !== "lr");
      if (spec.axes?.length) this.choice();
      if (high > 0) this.button = toggle(this.head, "log", this.log, () => this.setLog(!this.log), "Logarithmic scale");
      if (this.count > 1) this.legend = element("div", { class: "legend" }, this.figure);
      this.watch();
    }

    // A list of the axes of the sweep to color by.
    choice() {
      const list = element("select", {}, element("label", {}, this.head, "color "));
      this.spec.axes.forEach((k) => element("option", { value: k }, list, data.axes[k].name));
      list.addEventListener("change", () => {
        this.axis = data.axes[list.value];
        this.redraw();
      });
    }

    valueOnAxis(number) {
      return this.spec.series[number].at[data.axes.indexOf(this.axis)];
    }

    ink(number) {
      if (this.axis) return inkOn(this.axis, this.valueOnAxis(number));
      if (this.spec.series[number].name === "val") return css("c1");
      return this.count <= WORDS ? css(`c${number}`) : ramp(number / (this.count - 1));
    }

    // Buttons that hide a curve, or all curves of a label of the axis; a bar of colors where the axis has none.
    keyOfColors() {
      this.legend?.replaceChildren();
      if (!this.legend || (this.ofSweep && !this.axis)) return;
      if (this.axis && !this.axis.labels) return colorBar(this.legend, this.axis.name, brief(this.axis.low), brief(this.axis.high));
      const groups = new Map();
      this.spec.series.forEach((series, i) => {
        const value = this.axis ? this.valueOnAxis(i) : i;
        groups.set(value, [...(groups.get(value) ?? []), i]);
      });
      for (const [value, numbers] of [...groups].sort(([a], [b]) => a - b)) {
        const areShown = () => numbers.some((i) => !this.hidden.has(i));
        const button = toggle(this.legend, "", areShown(), () => {
          const hide = areShown();
          numbers.forEach((i) => this.hidden[hide ? "add" : "delete"](i));
          button.setAttribute("aria-pressed", !hide);
          const columns = numbers.flatMap((i) => [0, 1, 2].slice(0, this.spec.series[i].low ? 3 : 1).map((k) => this.columns[i] + k));
          this.u.batch(() => columns.forEach((k) => this.u.setSeries(k, { show: !hide })));
        }, "Show or hide");
        element("i", { style: `background:${this.ink(numbers[0])}` }, button);
        button.append(this.axis ? this.axis.labels[value] ?? "none" : this.spec.series[value].name);
      }
    }

    setLog(log) {
      if (!this.button) return;
      this.log = log;
      this.button.setAttribute("aria-pressed", log);
      this.redraw();
    }

    // The range that the data come with holds for their own scale.
    get given() {
      return this.spec.range && this.log === Boolean(this.spec.log) ? this.spec : {};
    }

    // Values that a logarithm does not have are gaps; those beyond a cut axis run along its edge. A band keeps its slope there, and the
    // frame clips it; an end that a logarithm does not have is far below the frame.
    rows() {
      const { cut, range } = this.given, [low, high] = cut || (range && this.log) ? range : [-Infinity, Infinity];
      const isGap = (v) => v === null || v === undefined, under = range && this.log ? low ** 2 / high : null;
      const drawn = (v) => (isGap(v) ? v : this.log && Math.max(low, v) <= 0 ? null : bounded(v, low, high));
      const end = (v) => (isGap(v) || !this.log || v > 0 ? v : under);
      return this.table.map((column, k) => (k ? column.map(this.columns.includes(k) ? drawn : end) : column));
    }

    range(low, high) {
      // an axis that a text says is cut ends where it says
      if (this.given.range) return this.spec.exact ? this.given.range : padded(this.given.range, this.log);
      if (low === null || low > high || (low === 0 && high === 0)) return this.log ? [0.1, 1] : [0, 1];
      return padded([low, high], this.log);
    }

    options() {
      this.keyOfColors();
      const series = [{}], bands = [], many = this.count > FEW, pale = this.spec.series.filter((spec) => spec.low).length > 3;
      this.spec.series.forEach((spec, i) => {
        const show = !this.hidden.has(i), ink = () => this.ink(i) + (this.isFaded(i) ? FADED : ""), k = this.columns[i];
        const alone = (values, j) => ![values[j - 1], values[j + 1]].some(Number.isFinite) && Number.isFinite(values[j]);
        const points = { size: spec.best ? 6 : 5, width: 0, fill: ink, show: (u, n, from, to) => to - from < 30 && !many,
          filter: (u, n, all) => (all ? null : u.data[n].map((v, j) => j).filter((j) => alone(u.data[n], j))) };
        series.push({ show, stroke: ink, width: spec.best ? 3 : many ? 1.2 : 1.8, dash: spec.dash, points });
        if (!spec.low) return;
        for (const end of [1, 2]) series[k + end] = { show, stroke: "#0000", width: 0, points: { show: false } };
        const isSeen = () => (this.hot === null ? spec.best || !this.ofSweep : this.hot === i);
        bands.push({ series: [k + 2, k + 1], fill: () => (isSeen() ? this.ink(i) + (pale && !this.ofSweep ? "14" : FADED) : "#0000") });
      });
      return {
        series, bands, padding: [10, 12, 0, 0],
        scales: { x: { time: false, range: () => view }, y: { distr: this.log ? 3 : 1, range: (u, low, high) => this.range(low, high) } },
        axes: [{ grid: { show: false }, space: 60, size: 28, ...(this.xs.every(Number.isInteger) ? { incrs: WHOLE } : {}) }, valueAxis(this.log, this.given)],
        cursor: {
          drag: { x: true, y: false, setScale: false, dist: 8 }, points: this.ofSweep || many ? { show: false } : { size: 9, width: 0 },
          move: (u, left, top) => [left < 0 ? left : u.valToPos(this.xs[u.posToIdx(left)], "x"), top],
        },
        hooks: { draw: [(u) => this.mark(u)], setSelect: [(u) => this.select(u)] },
      };
    }

    select(u) {
      const { left, width } = u.select;
      u.setSelect({ left: 0, width: 0 }, false);
      if (width > 8) zoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
    }

    // The best evaluation, dashed.
    mark(u) {
      if (typeof data.best !== "number" || data.best < view[0] || data.best > view[1]) return;
      const x = Math.round(u.valToPos(data.best, "x", true)), r = ratio();
      u.ctx.fillStyle = css("best");
      for (let y = 0; y < u.bbox.height; y += 7 * r) u.ctx.fillRect(x, u.bbox.top + y, r, 3 * r);
    }

    // Show the values at the cursor: of all curves, of many those nearest to the pointer, in a sweep the nearest one.
    point(u) {
      const at = u.cursor.left < 0 ? null : u.cursor.idx, most = this.ofSweep ? 1 : FEW;
      this.tip.hidden = true;
      const value = (i) => this.table[this.columns[i]][at], height = (i) => u.valToPos(u.data[this.columns[i]][at] ?? NaN, "y");
      const far = (i) => (Number.isFinite(value(i)) ? Math.abs(height(i) - u.cursor.top) : Infinity);
      let seen = at === null ? [] : [...this.spec.series.keys()].filter((i) => !this.hidden.has(i) && value(i) !== undefined);
      const isChosen = seen.length > most || this.ofSweep;
      if (isChosen) seen = seen.map((i) => [far(i), i]).sort(([a], [b]) => a - b).map(([, i]) => i).slice(0, most);
      this.heat(isChosen && seen.length ? seen[0] : null);
      if (!seen.length) return;
      const lines = seen.map((i) => [this.ink(i), this.spec.series[i].name, this.text(i, at)]);
      this.tell(`${unit} ${shown(this.xs[at])}`, lines, u.valToPos(this.xs[at], "x"), this.ofSweep ? u.cursor.top : 10);
    }

    // A value, with half its interval where it is a mean.
    text(i, at) {
      const [value, low, high] = [0, 1, 2].map((k) => this.table[this.columns[i] + k]?.[at]);
      return shown(value) + (this.spec.series[i].low && high > low ? ` ± ${brief((high - low) / 2)}` : "");
    }

    actions() {
      const { u, xs } = this, inView = [...xs.keys()].filter((i) => xs[i] >= view[0] && xs[i] <= view[1]);
      const first = inView[0] ?? 0, last = inView[inView.length - 1] ?? 0, at = u.cursor.left >= 0 ? u.cursor.idx : null;
      const half = (view[1] - view[0]) / 2, center = xs[at ?? last];
      const go = (i, top = u.cursor.top) => u.setCursor({ left: u.valToPos(xs[bounded(i, first, last)], "x"), top: Math.max(0, top) });
      // the values stay those of the same x, once the chart is drawn again
      const see = (from, to) => {
        zoom(from, to);
        if (at !== null) queueMicrotask(() => u.setCursor({ left: u.valToPos(xs[at], "x"), top: u.cursor.top }));
      };
      // to the next curve above or below
      const climb = (step) => {
        const heights = this.columns.map((k, i) => (this.hidden.has(i) ? NaN : u.valToPos(u.data[k][at ?? last] ?? NaN, "y")));
        const tops = [...new Set(heights.filter(Number.isFinite))].sort((a, b) => a - b), now = tops.indexOf(heights[this.hot]);
        go(at ?? last, tops[bounded(now + step, 0, tops.length - 1)] ?? 0);
      };
      return {
        ArrowLeft: () => go(at === null ? last : at - 1), ArrowRight: () => go(at === null ? first : at + 1),
        Home: () => go(first), End: () => go(last), 0: () => see(...whole), l: () => this.setLog(!this.log),
        "+": () => see(center - half / 2, center + half / 2), "-": () => see(center - 2 * half, center + 2 * half),
        ...(this.ofSweep ? { ArrowUp: () => climb(-1), ArrowDown: () => climb(1) } : {}),
      };
    }
  }

  // Charts of the configurations of a sweep; `items` are in the order of the arrow keys.
  class Configurations extends Chart {
    point(u) {
      const near = u.cursor.left < 0 ? -1 : this.nearest(u, u.cursor);
      if (near >= 0) return this.show(near, this.place(near, u.cursor));
      this.tip.hidden = true;
      this.heat(null);
    }

    show(number, [left, top]) {
      const { label, place, score, half } = this.items[number].spec;
      this.heat(number);
      this.tell(`#${place}  ${label}`, [[null, data.objective.name, shown(score) + (half ? ` ± ${brief(half)}` : "")]], left, top);
    }

    actions() {
      const last = this.items.length - 1, go = (i) => last >= 0 && this.show(bounded(i, 0, last), this.place(bounded(i, 0, last)));
      const next = () => go(this.hot === null ? 0 : this.hot + 1), before = () => go(this.hot === null ? last : this.hot - 1);
      return { ArrowRight: next, ArrowDown: next, ArrowLeft: before, ArrowUp: before, Home: () => go(0), End: () => go(last) };
    }
  }

  // The number of the smallest distance; -1 where none is that small.
  function least(distances, most) {
    return distances.indexOf(distances.reduce((a, b) => (b < a ? b : a), most));
  }

  const inRange = (score) => (data.objective.cut ? bounded(score, ...data.objective.range) : score);

  // The score over one axis, a dot for each configuration. Dots on a label are spread sideways.
  class Slice extends Configurations {
    constructor(axis, k, parent) {
      super(parent, axis.name, `${data.objective.name} by ${axis.name}, one dot for each of ${data.configurations.length} configurations`);
      const width = axis.labels ? Math.min(0.36, (0.03 * data.configurations.length) / axis.labels.length) : 0;
      const spread = (i) => width * (((i * 0.618034) % 1) - 0.5);
      this.axis = axis;
      this.items = data.configurations.map((spec, i) => ({ spec, x: spec.at[k] + spread(i), y: inRange(spec.score) }));
      this.items = this.items.filter(({ spec }) => spec.at[k] !== null).sort((a, b) => a.x - b.x);
      this.watch();
    }

    rows() {
      const pick = (best) => this.items.map(({ spec, y }) => (spec.best === best ? y : null));
      return [this.items.map(({ x }) => x), pick(false), pick(true)];
    }

    options() {
      const { axis } = this, { range, log } = data.objective;
      const crowd = this.items.length > CROWD, border = css("card");
      const dots = (size, color, width = 1) => ({ paths: () => null, stroke: color, points: { show: true, size, width, stroke: border, fill: color } });
      return {
        padding: [10, 12, 0, 0], series: [{}, crowd ? dots(5, `${css("c0")}70`, 0) : dots(8, `${css("c0")}b0`), dots(12, css("best"))],
        scales: {
          x: { time: false, range: () => (axis.labels ? [-0.5, axis.labels.length - 0.5] : padded([axis.low, axis.high], axis.log)), distr: axis.log ? 3 : 1 },
          y: { range: () => padded(range, log), distr: log ? 3 : 1 },
        },
        axes: [{ grid: { show: false }, ...(axis.labels ? this.words(axis.labels) : { ...valueAxis(axis.log), size: 28 }) }, valueAxis(log, data.objective)],
        cursor: { x: false, points: { show: false } },
      };
    }

    // An axis of words, slanted where they would touch.
    words(all) {
      const every = Math.ceil(all.length / 12), texts = all.map((label) => shortened(label, 14)), width = widest(texts);
      const isSlanted = (width + 10) * Math.ceil(all.length / every) > this.plot.clientWidth - 60;
      return {
        splits: () => [...texts.keys()], values: () => texts.map((text, i) => (i % every ? null : text)), filter: (u, splits) => splits,
        ...(isSlanted ? { rotate: 35, size: 26 + 0.6 * width } : { size: 28 }),
      };
    }

    place(number) {
      return [this.u.valToPos(this.items[number].x, "x"), this.u.valToPos(this.items[number].y, "y")];
    }

    nearest(u, { left, top }) {
      return least(this.items.map(({ x, y }) => Math.hypot(u.valToPos(x, "x") - left, u.valToPos(y, "y") - top)), 24);
    }
  }

  // Parallel coordinates: x is the number of an axis, each configuration a line over all axes to its score, colored by it.
  class Parallel extends Configurations {
    constructor(parent) {
      const { axes, objective, configurations } = data, { range, log, mode, cut, name } = objective;
      super(parent, "", `${configurations.length} configurations as lines over ${axes.map((axis) => axis.name).join(", ")} and ${name}`, true);
      this.goal = range[0] < range[1] ? range : padded(range, log);
      const goal = { low: this.goal[0], high: this.goal[1], log };
      this.plot.style.minWidth = `${110 * (axes.length + 1)}px`;
      this.items = configurations.map((spec) => {
        const end = share(goal, inRange(spec.score));
        return { spec, quality: mode === "min" ? 1 - end : end, heights: [...axes.map((axis, k) => (spec.at[k] === null ? undefined : share(axis, spec.at[k]))), end] };
      });
      const ends = range.map((value, k) => (cut && k === (cut === "≥" ? 1 : 0) ? `${cut} ` : "") + brief(value));
      colorBar(element("div", { class: "legend" }, this.figure), name, ...(mode === "min" ? ends.reverse() : ends));
      this.watch();
    }

    // The best is drawn last.
    rows() {
      return [[...Array(data.axes.length + 1).keys()], ...this.items.map(({ heights }) => heights).reverse()];
    }

    options() {
      const { axes, objective } = data, [width, alpha] = this.items.length > CROWD ? [1, "60"] : [1.6, "b0"], around = (texts, name) => Math.max(18 + widest(texts), widest([name]) / 2 + 6);
      const ink = ({ spec, quality }, i) => (this.isFaded(i) ? css("dot") + FADED : spec.best ? css("best") : ramp(quality) + (this.hot === i ? "" : alpha));
      const line = (item, i) => ({ stroke: () => ink(item, i), width: item.spec.best ? 3 : width, points: { show: false } });
      return {
        series: [{}, ...this.items.map(line).reverse()],
        padding: [34, 0, 12, around(this.marks(axes[0]).map(([, text]) => text), shortened(axes[0].name, 16))],
        scales: { x: { time: false, range: () => [0, axes.length] }, y: { range: () => [0, 1] },
          goal: { auto: false, range: () => this.goal, distr: objective.log ? 3 : 1 } },
        axes: [{ show: false }, { show: false }, { scale: "goal", side: 1, grid: { show: false }, ...valueAxis(objective.log, objective),
          size: (u, texts) => around(texts ?? [], objective.name) }],
        cursor: { x: false, points: { show: false } },
        hooks: { drawClear: [(u) => this.bars(u)], draw: [(u) => this.texts(u)] },
      };
    }

    bars(u) {
      u.ctx.fillStyle = css("line");
      for (let k = 0; k <= data.axes.length; k++)
        u.ctx.fillRect(Math.round(u.valToPos(k, "x", true) - ratio()), u.bbox.top, 2 * ratio(), u.bbox.height);
    }

    // The heights and labels of an axis.
    marks(axis) {
      const every = Math.ceil((axis.labels?.length ?? 0) / 12);
      const marks = axis.labels ? axis.labels.map((text, i) => [i, text]).filter(([i]) => i % every === 0) : [axis.low, axis.high].map((v) => [v, shown(v)]);
      return marks.map(([value, text]) => [share(axis, value), shortened(text, 16)]);
    }

    // The names of the axes above them, and their labels: left of the first one, on a ground of their own right of the others.
    texts(u) {
      const r = ratio(), most = Math.floor((u.bbox.width / data.axes.length / r - 12) / 7);
      [...data.axes, data.objective].forEach((axis, k) => {
        const x = u.valToPos(k, "x", true);
        write(u, shortened(axis.name, Math.max(4, most)), x, u.bbox.top - 20 * r, "center", "ink");
        for (const [height, text] of axis === data.objective ? [] : this.marks(axis)) {
          const y = u.valToPos(height, "y", true);
          u.ctx.fillStyle = `${css("ground")}d9`;
          if (k) u.ctx.fillRect(x + 4 * r, y - 8 * r, (widest([text]) + 6) * r, 16 * r);
          write(u, text, x + (k ? 7 : -8) * r, y, k ? "left" : "right", "soft");
        }
      });
    }

    place(number, { left, top } = { left: this.u.over.clientWidth, top: this.u.valToPos(this.items[number].heights[data.axes.length], "y") }) {
      return [left, top];
    }

    // The line at the height of the pointer.
    nearest(u, { left, top }) {
      const x = u.posToVal(left, "x"), k = bounded(Math.floor(x), 0, data.axes.length - 1);
      const height = ([a, b]) => (a ?? b) + (x - k) * ((b ?? a) - (a ?? b));
      return least(this.items.map(({ heights }) => Math.abs(u.valToPos(height(heights.slice(k, k + 2)), "y") - top)), 20);
    }
  }

  // Show a part of x in all charts of curves.
  function zoom(from, to) {
    const next = whole && [Math.max(whole[0], from), Math.min(whole[1], to)], lines = charts.filter((chart) => chart instanceof Lines);
    if (!next || !lines.some((chart) => chart.xs.filter((x) => x >= next[0] && x <= next[1]).length > 1)) return;
    view = next;
    lines.forEach((chart) => chart.u?.setScale("x", { min: view[0], max: view[1] }));
  }

  // On a narrow screen a card or a table that is wider says so.
  function markBoxes() {
    const boxes = [...document.querySelectorAll("section.card, .scroll")];
    const wider = boxes.map((box) => box.scrollWidth > box.clientWidth + 1);
    boxes.forEach((box, k) => box.classList.toggle("scrolls", wider[k]));
  }

  const boxSizes = new ResizeObserver(() => requestAnimationFrame(markBoxes));
  document.querySelectorAll("section.card, .scroll, .scroll > table").forEach((box) => boxSizes.observe(box));

  const place = (name) => document.querySelector(`[data-charts="${name}"]`);
  for (const spec of data.charts ?? []) if (place(spec.place)) new Lines(spec, place(spec.place));
  const ends = charts.flatMap((chart) => [chart.xs[0], chart.xs[chart.xs.length - 1]]).sort((a, b) => a - b);
  if (ends.length) whole = view = ends[0] < ends[ends.length - 1] ? [ends[0], ends[ends.length - 1]] : padded([ends[0], ends[0]]);
  if (place("slices")) data.axes.forEach((axis, k) => new Slice(axis, k, place("slices")));
  if (place("parallel")) new Parallel(place("parallel"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw()));
})();

/* matdesign: turns the data beside a picture into a viewer, and a row of frames into sliders.
 *
 * No kernel and no network. Markup, written by matdesign/view.py:
 *   figure.crystal-view > script[type="application/json"], .cv-stage > svg (the still picture)
 *   div.md-explore      > script[type="application/json"], .md-frame ... (one per slider place)
 * A viewer that is ready has data-ready="1" and data-frame; one that cannot start keeps its
 * still picture and has data-error.
 */
(function () {
  "use strict";
  if (window.matdesignViewers) return window.matdesignViewers.scan();
  const SCRIPT = document.currentScript && document.currentScript.src;
  let engine;

  /* ---- NGL: inlined in the page (gzip, base64), or beside this script ---------------- */
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  function addScript(fill) {
    return new Promise((done, failed) => {
      const tag = document.createElement("script");
      tag.onload = done;
      tag.onerror = () => failed(new Error("the NGL library did not load"));
      fill(tag);
      document.head.append(tag);
      if (!tag.src) done();
    });
  }
  function loadEngine() {
    return (engine ||= (async () => {
      if (!window.NGL) {
        const packed = document.getElementById("matdesign-ngl");
        if (packed) {
          const code = await unpack(packed.textContent);
          await addScript((tag) => { tag.textContent = code; });
        } else {
          const where = new URL("vendor/ngl.js", SCRIPT || document.baseURI).href;
          await addScript((tag) => { tag.src = where; });
        }
      }
      if (!window.NGL) throw new Error("the NGL library is not there");
      return window.NGL;
    })());
  }

  /* ---- one frame as NGL shapes -------------------------------------------------------- */
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
  /* Every frame is drawn around the middle of its own cell, so that cells grow in place. */
  const centre = (c) => [0, 1, 2].map((x) => (c[x] + c[3 + x] + c[6 + x]) / 2);
  const point = (frame, i) => {
    const mid = centre(frame.cell);
    return [0, 1, 2].map((x) => frame.xyz[3 * i + x] - mid[x]);
  };
  const reach = (frame) => Math.max(...frame.kind.map((_, i) => Math.hypot(...point(frame, i))));
  const middle = (p, q) => p.map((x, i) => (x + q[i]) / 2);

  function drawFrame(NGL, scene, frame, lettered) {
    const shape = new NGL.Shape("crystal", { radialSegments: 16 });
    const colors = scene.species.map((kind) => rgb(kind.color));
    frame.kind.forEach((k, i) => {
      const kind = scene.species[k];
      const tip = `${kind.symbol} (${kind.name}), site ${frame.site[i]}`;
      shape.addSphere(point(frame, i), colors[k], kind.radius, tip);
    });
    for (let n = 0; n < frame.bonds.length; n += 2) {
      const ends = [frame.bonds[n], frame.bonds[n + 1]];
      const half = middle(point(frame, ends[0]), point(frame, ends[1]));
      for (const end of ends) {
        const kind = scene.species[frame.kind[end]];
        shape.addCylinder(point(frame, end), half, colors[frame.kind[end]], 0.09, `${kind.symbol} bond`);
      }
    }
    const c = frame.cell, mid = centre(c);
    const corner = (n) => [0, 1, 2].map((x) => (n & 1) * c[x] + ((n >> 1) & 1) * c[3 + x] + (n >> 2) * c[6 + x] - mid[x]);
    const thick = Math.max(0.035, 0.008 * Math.hypot(...mid));  // seen from afar, too
    for (let p = 0; p < 8; p++) {
      for (const bit of [1, 2, 4]) {
        if (!(p & bit)) shape.addCylinder(corner(p), corner(p | bit), [0.35, 0.35, 0.4], thick, "cell edge");
      }
    }
    if (lettered) {
      frame.kind.forEach((k, i) => {
        shape.addText(point(frame, i), [0, 0, 0], 1.6, scene.species[k].symbol);
      });
    }
    return shape;
  }

  /* ---- a viewer ----------------------------------------------------------------------- */
  function button(text, label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.title = label;
    made.addEventListener("click", act);
    return made;
  }

  class Viewer {
    constructor(figure) {
      this.figure = figure;
      this.scene = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      this.options = this.scene.options;
      this.place = figure.querySelector(".cv-stage");
      this.frame = this.options.start || 0;
      this.lettered = false;
      this.addBar();
    }

    addBar() {
      const { frames, options } = this.scene;
      if (frames.length < 2) return;
      const bar = document.createElement("div");
      bar.className = "cv-bar";
      if (options.sliders) {
        addSliders(bar, options.sliders, (n) => this.show(n));
      } else {
        this.addPlayer(bar);
      }
      this.place.after(bar);
    }

    addPlayer(bar) {
      const last = this.scene.frames.length - 1;
      const slider = document.createElement("input");
      Object.assign(slider, { type: "range", min: 0, max: last, value: this.frame });
      slider.setAttribute("aria-label", this.options.slider || "crystal");
      this.label = document.createElement("span");
      this.label.className = "cv-label";
      let timer = 0;
      const go = (n) => { slider.value = n; this.show(+slider.value); };
      const stop = () => { clearInterval(timer); timer = 0; play.textContent = "▶"; play.setAttribute("aria-label", "play"); };
      const step = (by) => () => { stop(); go((this.frame + by + last + 1) % (last + 1)); };
      const play = button("▶", "play", () => {
        if (timer) return stop();
        if (this.frame === last) go(0);
        play.textContent = "⏸";
        play.setAttribute("aria-label", "pause");
        timer = setInterval(() => {
          if (this.frame === last) return stop();
          go(this.frame + 1);
        }, this.options.interval || 150);
      });
      slider.addEventListener("input", () => { stop(); this.show(+slider.value); });
      bar.append(button("◀", "one back", step(-1)), play, button("▶|", "one on", step(1)), slider, this.label);
      this.name();
    }

    name() {
      const frame = this.scene.frames[this.frame];
      if (this.label) this.label.textContent = frame.label;
      if (frame.alt) this.place.setAttribute("aria-label", frame.alt);
      const beside = this.figure.querySelector(".cv-beside");
      if (beside) beside.innerHTML = frame.beside;
      this.figure.dataset.frame = this.frame;
    }

    show(n) {
      this.frame = n;
      this.name();
      if (this.stage) this.draw();
    }

    draw(n = this.frame) {
      const old = this.component;
      const shape = drawFrame(this.NGL, this.scene, this.scene.frames[n], this.lettered);
      this.component = this.stage.addComponentFromObject(shape);
      this.component.addRepresentation("buffer");
      if (old) this.stage.removeComponent(old);
      if (this.options.refit) this.component.autoView();
    }

    turn(right, down) {
      const { Quaternion, Vector3 } = this.NGL;
      const q = new Quaternion().setFromAxisAngle(new Vector3(0, 1, 0), right);
      q.premultiply(new Quaternion().setFromAxisAngle(new Vector3(1, 0, 0), down));
      this.stage.viewerControls.rotate(q);
    }

    /* Fit the widest frame, so that none leaves the picture; with refit, each frame. */
    fit() {
      const frames = this.scene.frames;
      const reaches = frames.map(reach);
      const refit = this.options.refit;
      this.draw(refit ? this.frame : reaches.indexOf(Math.max(...reaches)));
      this.component.autoView();
      if (frames.length > 1 && !refit) this.draw();
      this.plain = this.stage.viewerControls.getOrientation().clone();
      this.reset();
    }

    /* The first view: seen from the same side as the still picture. */
    reset() {
      const controls = this.stage.viewerControls;
      controls.orient(this.plain);
      controls.rotate(new this.NGL.Quaternion(...this.options.orientation));
      if (this.options.refit) this.component.autoView();
    }

    async mount() {
      const NGL = (this.NGL = await loadEngine());
      if (this.stage) return;
      const host = document.createElement("div");
      host.className = "cv-canvas";
      this.place.append(host);
      const stage = new NGL.Stage(host, {
        backgroundColor: "white", cameraType: "orthographic", tooltip: false,
        clipDist: 0, clipNear: 0, clipFar: 100, fogNear: 100, fogFar: 100, hoverTimeout: 40,
      });
      if (!stage.viewer || !host.querySelector("canvas")) throw new Error("WebGL is not available");
      this.stage = stage;
      this.still = this.place.querySelector("svg");
      if (this.still) this.still.style.visibility = "hidden";
      stage.mouseControls.remove("scroll");          // the wheel belongs to the page
      stage.mouseControls.add("scroll-ctrl", NGL.MouseActions.zoomScroll);
      this.watcher = new ResizeObserver(() => stage.handleResize());
      this.watcher.observe(host);
      this.fit();
      this.addTools(host);
      this.figure.dataset.ready = "1";
      delete this.figure.dataset.error;
    }

    addTools(host) {
      const tip = document.createElement("span");
      tip.className = "cv-tip";
      tip.setAttribute("aria-hidden", "true");
      this.stage.signals.hovered.add((hit) => {
        const found = hit && (hit.sphere || hit.cylinder);
        tip.textContent = (found && found.name) || "";
      });
      host.addEventListener("mouseleave", () => { tip.textContent = ""; });
      const letters = button("Aa", "element symbols on the atoms", () => {
        this.lettered = !this.lettered;
        letters.setAttribute("aria-pressed", this.lettered);
        this.draw();
      });
      letters.setAttribute("aria-pressed", this.lettered);
      this.tools = document.createElement("div");
      this.tools.className = "cv-tools";
      const picture = button("⤓", "save as a picture (PNG)", () => this.savePicture());
      this.tools.append(letters, button("↺", "back to the first view", () => this.reset()), picture);
      this.place.append(tip, this.tools);
      this.tip = tip;
      if (this.keys) return;
      this.keys = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
      this.place.addEventListener("keydown", (event) => {
        const way = this.keys[event.key];
        if (!way || !this.stage || event.target !== this.place) return;
        event.preventDefault();
        this.turn(...way);
      });
    }

    async savePicture() {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await this.stage.makeImage({ factor: 2, antialias: true }));
      link.download = `${this.options.name || "crystal"}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }

    /* Browsers keep at most 16 WebGL contexts, so viewers far off the screen give theirs back. */
    unmount() {
      if (!this.stage) return;
      const stage = this.stage;
      this.stage = this.component = undefined;
      this.watcher.disconnect();
      this.figure.dataset.ready = "";
      try {
        stage.viewer.renderer.render = () => {};  // a frame asked for before must not draw now
        stage.viewer.renderer.forceContextLoss();
        stage.dispose();
      } catch (problem) {
        console.debug("viewer closed:", problem);
      }
      this.place.querySelectorAll(".cv-canvas, .cv-tools, .cv-tip").forEach((node) => node.remove());
      if (this.still) this.still.style.visibility = "";
    }
  }

  /* ---- sliders ------------------------------------------------------------------------
   * spec = { mode: "grid" | "star", sliders: [{ name, values: [text], start }] }
   * grid: every combination is a frame, the last slider runs fastest.
   * star: one slider at a time leaves its start, the others return to theirs.            */
  function addSliders(bar, spec, change) {
    bar.classList.add("cv-sliders");
    const inputs = [], shown = [];
    const write = () => inputs.forEach((input, i) => {
      shown[i].textContent = spec.sliders[i].values[+input.value];
      input.setAttribute("aria-valuetext", shown[i].textContent);
    });
    const index = (moved) => {
      if (spec.mode === "grid") return spec.sliders.reduce((n, s, i) => n * s.values.length + +inputs[i].value, 0);
      let before = 0;
      for (let i = 0; i < moved; i++) before += spec.sliders[i].values.length;
      return before + +inputs[moved].value;
    };
    spec.sliders.forEach((one, i) => {
      const row = document.createElement("label");
      row.className = "cv-bar";
      row.style.cssText = "flex: 1 1 100%; padding: 0";
      const name = document.createElement("span"), value = document.createElement("span");
      name.className = "cv-name";
      name.textContent = one.name;
      value.className = "cv-value";
      const input = document.createElement("input");
      Object.assign(input, { type: "range", min: 0, max: one.values.length - 1, value: one.start });
      input.value = one.start;
      input.setAttribute("aria-label", one.name);
      input.addEventListener("input", () => {
        if (spec.mode === "star") inputs.forEach((other, j) => { if (j !== i) other.value = spec.sliders[j].start; });
        write();
        change(index(i));
      });
      inputs.push(input);
      shown.push(value);
      row.append(name, input, value);
      bar.append(row);
    });
    write();
  }

  function mountExplorer(box) {
    const spec = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
    const frames = [...box.querySelectorAll(".md-frame")];
    const bar = document.createElement("div");
    bar.className = "cv-bar";
    addSliders(bar, spec, (n) => {
      frames.forEach((frame, i) => frame.classList.toggle("md-shown", i === n));
      box.dataset.frame = n;
    });
    box.append(bar);
    box.dataset.ready = "1";
  }

  /* ---- find them, and start them when they come near the screen ----------------------- */
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const viewer = entry.target.matdesign;
    if (!entry.isIntersecting) return viewer.unmount();
    viewer.mount().catch((problem) => {
      entry.target.dataset.error = problem;
      console.warn("crystal viewer keeps its still picture:", problem);
    });
  }), { rootMargin: "500px" });

  function scan() {
    document.querySelectorAll(".crystal-view:not([data-seen])").forEach((figure) => {
      figure.dataset.seen = "1";
      figure.matdesign = new Viewer(figure);
      near.observe(figure);
    });
    document.querySelectorAll(".md-explore:not([data-seen])").forEach((box) => {
      box.dataset.seen = "1";
      mountExplorer(box);
    });
  }
  window.matdesignViewers = { scan };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", scan);
  else scan();
})();

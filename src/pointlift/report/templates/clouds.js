// The tiles: clouds that turn by themselves while they are in sight, and under mouse, finger and keys.
(() => {
  const source = document.getElementById("cloud-data");
  if (!source) return;
  const { up, clouds } = JSON.parse(source.textContent);
  const SIZE = 320; // pixels of a tile, whatever its size on screen
  const POINTS = 5000; // drawn in a tile at most
  const SPEED = 0.35; // radians per second
  const FRAME = 1000 / 30;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const darkScheme = matchMedia("(prefers-color-scheme: dark)");
  const raster = new Clouds.Raster(SIZE, SIZE); // one for all: a tile is drawn and copied at once
  const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  const modeSelect = document.getElementById("cloud-mode");
  const upSelect = document.getElementById("cloud-up");
  Object.assign(Clouds, { data: clouds, up, mode: modeSelect ? modeSelect.value : "plain", veil: () => (darkScheme.matches ? 27 : 255) });
  Clouds.plainColour = (canvas) => {
    const style = getComputedStyle(canvas);
    return hex(style.getPropertyValue(canvas.closest(".wrong") ? "--wrong" : "--right").trim());
  };

  // Mouse, fingers and keys for one canvas. `redraw` is called after `view` changed; `tap` on a click or Enter.
  // Two fingers zoom, and move the cloud where `pan` allows it.
  Clouds.control = (canvas, view, { redraw, tap = null, pan = false }) => {
    const fingers = new Map();
    let moved = 0;
    const turn = (dx, dy) => {
      view.yaw += dx;
      view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + dy));
    };
    const zoom = (factor) => { view.zoom = Math.max(0.5, Math.min(12, view.zoom * factor)); };
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return [Math.hypot(a.x - b.x, a.y - b.y) || 1, (a.x + b.x) / 2, (a.y + b.y) / 2];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (fingers.size === 1) moved = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const finger = fingers.get(event.pointerId);
      if (!finger) return;
      const side = Math.min(canvas.clientWidth, canvas.clientHeight);
      const before = fingers.size === 2 ? spread() : null;
      const [dx, dy] = [event.clientX - finger.x, event.clientY - finger.y];
      [finger.x, finger.y] = [event.clientX, event.clientY];
      moved += Math.abs(dx) + Math.abs(dy);
      if (before) {
        const after = spread();
        zoom(after[0] / before[0]);
        if (pan) { view.panX += (after[1] - before[1]) / side; view.panY += (after[2] - before[2]) / side; }
      } else if (pan && event.shiftKey) {
        view.panX += dx / side;
        view.panY += dy / side;
      } else {
        const speed = 2.6 / side / Math.max(1, Math.sqrt(view.zoom));
        turn(dx * speed, dy * speed);
      }
      redraw();
    });
    const lift = (event) => {
      const was = fingers.delete(event.pointerId);
      if (was && !fingers.size && event.type === "pointerup" && moved < 6 && tap) tap();
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    if (pan) {
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        zoom(Math.exp(-event.deltaY / 400));
        redraw();
      }, { passive: false });
    }
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if ((event.key === "Enter" || event.key === " ") && tap) { event.preventDefault(); tap(); return; }
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      const scale = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
      if (!by && !scale && event.key !== "0") return;
      event.preventDefault();
      if (by) turn(...by);
      else if (scale) zoom(scale);
      else Object.assign(view, Clouds.START);
      redraw();
    });
    return { get held() { return fingers.size > 0; }, zoom };
  };

  // Tiles inside one `data-linked` element turn together: they share their view.
  const groups = new Map();
  const tiles = [...document.querySelectorAll("canvas[data-cloud]")].map((canvas) => {
    const key = canvas.closest("[data-linked]") ?? canvas;
    if (!groups.has(key)) groups.set(key, { view: { ...Clouds.START }, tiles: [], turned: false });
    const group = groups.get(key);
    const tile = { canvas, id: Number(canvas.dataset.cloud), group, view: group.view, cloud: null, rgb: null, context: null, visible: false, control: null };
    group.tiles.push(tile);
    return tile;
  });
  Clouds.tiles = tiles;

  // A page may hold hundreds of clouds: a tile is unpacked when it comes near the screen and given up when it leaves.
  function wake(tile) {
    if (tile.context) return;
    tile.canvas.width = tile.canvas.height = SIZE;
    tile.context = tile.canvas.getContext("2d", { willReadFrequently: true }); // kept in memory: we write every pixel
    const packed = clouds[tile.id];
    tile.cloud = Clouds.decode(packed, Clouds.up);
    colour(tile);
  }
  function sleep(tile) {
    if (!tile.context || tiles.length <= 24) return;
    tile.canvas.width = tile.canvas.height = 1;
    tile.context = tile.cloud = tile.rgb = null;
  }
  function colour(tile) {
    tile.rgb = Clouds.colours(tile.cloud, Clouds.mode, Clouds.plainColour(tile.canvas)).rgb;
  }
  // Another cloud in a tile.
  Clouds.put = (tile, id) => {
    tile.id = id;
    if (!tile.context) return;
    tile.cloud = Clouds.decode(clouds[id], Clouds.up);
    colour(tile);
    draw(tile);
  };
  function draw(tile) {
    if (tile.context) tile.context.putImageData(raster.draw(tile.cloud, tile.view, tile.rgb, Clouds.veil(), POINTS), 0, 0);
  }
  function repaint(change) {
    for (const tile of tiles) {
      if (!tile.context) continue;
      change(tile);
      draw(tile);
    }
  }

  for (const tile of tiles) {
    tile.control = Clouds.control(tile.canvas, tile.view, {
      redraw: () => { tile.group.turned = true; tile.group.tiles.forEach(draw); }, // what someone turned stays as they left it
      tap: () => Clouds.enlarge(tile),
    });
    if (tiles.length <= 24) { wake(tile); draw(tile); }
  }

  // Turning costs nothing out of sight: only visible clouds are drawn, thirty times a second.
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const tile = tiles.find((t) => t.canvas === entry.target);
      tile.visible = entry.isIntersecting;
      if (tile.visible && !tile.context) { wake(tile); draw(tile); }
      if (!tile.visible) sleep(tile);
    }
  }, { rootMargin: "120px" });
  tiles.forEach((tile) => watch.observe(tile.canvas));

  addEventListener("beforeprint", () => tiles.forEach((tile) => { wake(tile); draw(tile); })); // those out of sight too

  const button = document.getElementById("turning");
  let turning = false;
  let last = 0;
  function frame(now) {
    if (!turning) return;
    if (now - last >= FRAME) {
      const by = SPEED * Math.min(0.1, (now - last) / 1000);
      last = now;
      if (!Clouds.enlarged) {
        for (const group of groups.values()) {
          const seen = group.tiles.filter((tile) => tile.visible);
          if (!seen.length || group.turned || seen.some((tile) => tile.control.held)) continue;
          group.view.yaw += by;
          seen.forEach(draw);
        }
      }
    }
    requestAnimationFrame(frame);
  }
  function setTurning(on) {
    turning = on;
    button.textContent = on ? "Pause turning" : "Turn all";
    if (!on) return;
    groups.forEach((group) => { group.turned = false; });
    last = performance.now();
    requestAnimationFrame(frame);
  }
  button.hidden = false;
  button.addEventListener("click", () => setTurning(!turning));
  setTurning(!still.matches);
  darkScheme.addEventListener("change", () => repaint(colour));

  if (modeSelect) {
    modeSelect.closest("label").hidden = false;
    modeSelect.addEventListener("change", () => { Clouds.mode = modeSelect.value; repaint(colour); legend(); });
  }
  if (upSelect) {
    upSelect.closest("label").hidden = false;
    upSelect.addEventListener("change", () => {
      Clouds.up = upSelect.value;
      repaint((tile) => { tile.cloud = Clouds.decode(clouds[tile.id], Clouds.up); colour(tile); });
    });
  }

  // What the colours mean, built of elements: names of classes come from files.
  Clouds.showLegend = (box, what) => {
    box.replaceChildren();
    box.hidden = !what;
    if (!what) return;
    const add = (parent, name, text, className = "") => {
      const node = document.createElement(name);
      node.textContent = text;
      node.className = className;
      parent.append(node);
      return node;
    };
    if (what.kinds) {
      for (const [fill, name] of what.kinds) {
        const item = add(box, "span", "", "kind");
        add(item, "i", "", "swatch").style.background = fill;
        add(item, "bdi", name);
      }
      return;
    }
    const scale = add(box, "span", "", "scale");
    add(scale, "i", "", "gradient").style.background = what.gradient;
    const marks = add(scale, "span", "", "marks");
    what.marks.forEach((mark) => add(marks, "span", mark));
    if (what.ends[0]) {
      const ends = add(scale, "span", "", "marks");
      what.ends.forEach((end) => add(ends, "span", end));
    }
  };
  const legendBox = document.getElementById("cloud-legend");
  function legend() {
    if (!legendBox) return;
    const first = clouds.find((packed) => Clouds.modes(packed).includes(Clouds.mode));
    const what = first ? Clouds.colours(Clouds.decode(first, Clouds.up), Clouds.mode, [0, 0, 0]).legend : null;
    // Every tile has its own scale: only the ends are said for all.
    if (what?.kinds) what.kinds = Clouds.kinds(clouds, Clouds.mode);
    if (what?.marks) what.marks = what.marks.length === 3 ? ["−", "0", "+"] : ["", ""];
    Clouds.showLegend(legendBox, what);
  }
  legend();

  const more = document.getElementById("more-clouds");
  if (more) {
    const grid = more.previousElementSibling;
    grid.classList.add("few");
    more.hidden = false;
    more.addEventListener("click", () => { grid.classList.remove("few"); more.hidden = true; });
  }
})();

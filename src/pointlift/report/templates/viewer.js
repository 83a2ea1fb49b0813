// One cloud, large: all its points, at most as many pixels as can be drawn in time.
(() => {
  const dialog = document.getElementById("viewer");
  if (!dialog || !Clouds.data) return;
  const PIXELS = 900 * 700; // drawn at most; a larger screen shows them enlarged
  const IN_TIME = 28; // milliseconds that a picture may take while the cloud moves
  const canvas = dialog.querySelector("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
  const select = part("mode");
  const view = { ...Clouds.START };
  const raster = new Clouds.Raster(1, 1);
  let cloud = null, rgb = null, at = 0, budget = Infinity, waiting = false, settle = 0;

  function draw(count = cloud.n) {
    const begun = performance.now();
    context.putImageData(raster.draw(cloud, view, rgb, Clouds.veil(), count, Math.sqrt(count * cloud.n)), 0, 0);
    return performance.now() - begun;
  }

  // While it moves, as many points as there is time for; all of them as soon as it rests.
  function redraw() {
    if (waiting || !cloud) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (!cloud) return;
      const count = Math.min(cloud.n, Math.max(20000, budget));
      const took = draw(count);
      budget = Math.min(cloud.n * 2, (count * IN_TIME) / Math.max(1, took));
      clearTimeout(settle);
      if (count < cloud.n) settle = setTimeout(() => cloud && draw(), 120);
    });
  }

  function colour() {
    const tile = Clouds.tiles[at];
    const made = Clouds.colours(cloud, select.value, Clouds.plainColour(tile.canvas));
    rgb = made.rgb;
    Clouds.showLegend(part("legend"), made.legend);
  }

  function fit() {
    const box = canvas.parentElement.getBoundingClientRect();
    const scale = Math.min(devicePixelRatio || 1, Math.sqrt(PIXELS / Math.max(1, box.width * box.height)));
    const [width, height] = [Math.max(1, Math.round(box.width * scale)), Math.max(1, Math.round(box.height * scale))];
    if (width === raster.width && height === raster.height) return;
    raster.resize(width, height);
    [canvas.width, canvas.height] = [width, height];
    redraw();
  }

  function show(index) {
    at = (index + Clouds.tiles.length) % Clouds.tiles.length;
    const tile = Clouds.tiles[at];
    const packed = Clouds.data[tile.id];
    Object.assign(view, Clouds.START, { yaw: tile.view.yaw, pitch: tile.view.pitch });
    cloud = Clouds.decode(packed, Clouds.up);
    budget = cloud.n * 2;
    const known = Clouds.modes(packed);
    select.replaceChildren(...known.map((mode) => new Option(mode, mode)));
    select.value = known.includes(Clouds.mode) ? Clouds.mode : "plain";
    const caption = tile.canvas.closest(".tile").querySelector("figcaption");
    part("title").replaceChildren(...[...caption.childNodes].map((node) => node.cloneNode(true)));
    const [n, of] = [cloud.n, cloud.of].map((count) => count.toLocaleString("en"));
    part("count").textContent = n === of ? `${n} points` : `${n} of ${of} points`;
    canvas.setAttribute("aria-label", `${tile.canvas.dataset.says}. Arrow keys turn it, plus and minus zoom, 0 resets.`);
    dialog.classList.toggle("wrong", Boolean(tile.canvas.closest(".wrong")));
    colour();
    redraw();
  }

  Clouds.enlarge = (tile) => {
    dialog.showModal();
    Clouds.enlarged = true;
    show(Clouds.tiles.indexOf(tile));
    fit();
    canvas.focus();
  };
  const control = Clouds.control(canvas, view, { redraw, pan: true });
  new ResizeObserver(() => { if (dialog.open) fit(); }).observe(canvas.parentElement);
  dialog.addEventListener("close", () => { Clouds.enlarged = false; cloud = rgb = null; clearTimeout(settle); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.target === select) return;
    const step = { PageUp: -1, PageDown: 1 }[event.key];
    if (step) { event.preventDefault(); show(at + step); }
  });
  select.addEventListener("change", () => { colour(); redraw(); });
  const act = { close: () => dialog.close(), before: () => show(at - 1), after: () => show(at + 1),
    nearer: () => { control.zoom(1.25); redraw(); }, further: () => { control.zoom(0.8); redraw(); },
    reset: () => { Object.assign(view, Clouds.START); redraw(); } };
  for (const [name, run] of Object.entries(act)) part(name).addEventListener("click", run);
  for (const name of ["before", "after"]) part(name).hidden = Clouds.tiles.length < 2;
  Clouds.viewer = { draw, view, get cloud() { return cloud; } };
})();

// Clouds that turn: points as small discs in a depth buffer, lit by their normals and darkened where their
// neighbours in the picture are nearer (eye-dome lighting, Boucheny 2009), so that few points read as a surface.
(() => {
  const source = document.getElementById("cloud-data");
  if (!source) return;
  const { up, points } = JSON.parse(source.textContent);
  const SIZE = 320; // pixels of the buffers, whatever the size on screen
  const DISTANCE = 3.4; // of the eye from the centre of the unit ball
  const SPEED = 0.35; // radians per second
  const FRAME = 1000 / 30;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const REACH = 3; // pixels to the neighbours that may shade a pixel
  const depth = new Float32Array(SIZE * SIZE);
  const light = new Float32Array(SIZE * SIZE);

  function decode(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const n = bytes.length / 9;
    const xyz = new Float32Array(3 * n);
    const normal = new Float32Array(3 * n);
    // Right-handed, with the up axis of the data set upwards on screen: columns are right, up, towards the eye.
    const [right, high, front, sign] = { x: [1, 0, 2, -1], y: [0, 1, 2, 1], z: [0, 2, 1, -1] }[up];
    for (let i = 0; i < n; i++) {
      [right, high, front].forEach((axis, k) => {
        const flip = k === 2 ? sign : 1;
        xyz[3 * i + k] = (flip * view.getInt16(6 * i + 2 * axis, true)) / 32767;
        normal[3 * i + k] = (flip * view.getInt8(6 * n + 3 * i + axis)) / 127;
      });
    }
    return { n, xyz, normal };
  }

  function splat({ n, xyz, normal }, yaw, pitch, zoom) {
    depth.fill(Infinity);
    const box = [SIZE, SIZE, -1, -1]; // left, top, right, bottom of what is drawn
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const focal = 0.47 * SIZE * zoom * Math.sqrt(DISTANCE * DISTANCE - 1);
    const size = Math.min(0.06, 1.3 / Math.sqrt(n)) * focal;
    for (let i = 0; i < n; i++) {
      const x = xyz[3 * i], y = xyz[3 * i + 1], z = xyz[3 * i + 2];
      const front = cy * z - sy * x;
      const far = DISTANCE - (cp * front + sp * y);
      const px = SIZE / 2 + (focal * (cy * x + sy * z)) / far;
      const py = SIZE / 2 - (focal * (cp * y - sp * front)) / far;
      const r = Math.max(0.8, size / far);

      // Light from the upper left, in front. A seen surface faces the eye, which settles the normal's side.
      const a = normal[3 * i], b = normal[3 * i + 1], c = normal[3 * i + 2];
      const back = cy * c - sy * a;
      const toEye = cp * back + sp * b;
      const lit = -0.46 * (cy * a + sy * c) + 0.62 * (cp * b - sp * back) + 0.64 * toEye;
      const bright = 0.5 + 0.5 * (toEye < 0 ? -lit : lit);

      const x0 = Math.max(0, Math.ceil(px - r)), x1 = Math.min(SIZE - 1, Math.floor(px + r));
      const y0 = Math.max(0, Math.ceil(py - r)), y1 = Math.min(SIZE - 1, Math.floor(py + r));
      if (x0 < box[0]) box[0] = x0;
      if (y0 < box[1]) box[1] = y0;
      if (x1 > box[2]) box[2] = x1;
      if (y1 > box[3]) box[3] = y1;
      for (let v = y0; v <= y1; v++) {
        for (let u = x0; u <= x1; u++) {
          const square = ((u - px) * (u - px) + (v - py) * (v - py)) / (r * r);
          if (square > 1) continue;
          const k = v * SIZE + u;
          const d = far + 0.02 * square; // a shallow bulge separates neighbouring points
          if (d < depth[k]) { depth[k] = d; light[k] = bright; }
        }
      }
    }
    return box;
  }

  function shade(image, [left, top, right, bottom], [red, green, blue], veil) {
    const out = image.data;
    out.fill(0);
    const steps = [REACH, -REACH, REACH * SIZE, -REACH * SIZE];
    for (let v = top; v <= bottom; v++) {
      for (let k = v * SIZE + left; k <= v * SIZE + right; k++) {
        const d = depth[k];
        if (d === Infinity) continue;
        let covered = 0;
        for (let s = 0; s < 4; s++) {
          const other = depth[k + steps[s]];
          if (other < d) covered += Math.min(0.2, d - other);
        }
        const near = Math.min(1, Math.max(0, (DISTANCE + 1 - d) / 2)); // 1 in front, 0 behind
        const haze = 0.36 * (1 - near);
        const white = Math.max(0, light[k] - 0.8) * 1.1;
        const level = Math.exp(-1.7 * covered) * (0.52 + 0.72 * light[k] * light[k]) * (1 - white) * (1 - haze);
        const added = 255 * white * (1 - haze) + veil * haze;
        out[4 * k] = red * level + added;
        out[4 * k + 1] = green * level + added;
        out[4 * k + 2] = blue * level + added;
        out[4 * k + 3] = 255;
      }
    }
  }

  const tiles = [...document.querySelectorAll("canvas[data-cloud]")].map((canvas) => ({
    canvas,
    context: canvas.getContext("2d", { willReadFrequently: true }), // kept in memory: we write every pixel ourselves
    image: new ImageData(SIZE, SIZE),
    cloud: decode(points[canvas.dataset.cloud]),
    yaw: 0.6, pitch: 0.32, zoom: 1, visible: false, held: false, turned: false,
  }));

  const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  const darkScheme = matchMedia("(prefers-color-scheme: dark)");
  function draw(tile) {
    const box = splat(tile.cloud, tile.yaw, tile.pitch, tile.zoom);
    const style = getComputedStyle(tile.canvas);
    const wrong = tile.canvas.parentElement.classList.contains("wrong");
    shade(tile.image, box, hex(style.getPropertyValue(wrong ? "--wrong" : "--right").trim()), darkScheme.matches ? 27 : 255);
    tile.context.putImageData(tile.image, 0, 0);
  }

  function turn(tile, yaw, pitch) {
    tile.yaw += yaw;
    tile.pitch = Math.max(-1.5, Math.min(1.5, tile.pitch + pitch));
    tile.turned = true; // a cloud that someone turned stays as they left it
    draw(tile);
  }

  for (const tile of tiles) {
    const { canvas } = tile;
    canvas.addEventListener("pointerdown", (event) => { tile.held = true; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (tile.held) turn(tile, event.movementX * 0.012, event.movementY * 0.012);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { tile.held = false; });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      const scale = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
      if (!by && !scale) return;
      event.preventDefault();
      if (scale) tile.zoom = Math.max(0.5, Math.min(4, tile.zoom * scale));
      turn(tile, ...(by ?? [0, 0]));
    });
    draw(tile);
  }

  // Turning costs nothing out of sight: only visible clouds are drawn, thirty times a second.
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) tiles.find((t) => t.canvas === entry.target).visible = entry.isIntersecting;
  });
  tiles.forEach((tile) => watch.observe(tile.canvas));
  const button = document.getElementById("turning");
  let turning = !still.matches;
  let last = 0;
  function frame(now) {
    if (!turning) return;
    if (now - last >= FRAME) {
      const by = SPEED * Math.min(0.1, (now - last) / 1000);
      last = now;
      for (const tile of tiles) {
        if (!tile.visible || tile.held || tile.turned) continue;
        tile.yaw += by;
        draw(tile);
      }
    }
    requestAnimationFrame(frame);
  }
  function setTurning(on) {
    turning = on;
    button.textContent = on ? "Pause turning" : "Turn all";
    if (!on) return;
    tiles.forEach((tile) => { tile.turned = false; });
    last = performance.now();
    requestAnimationFrame(frame);
  }
  button.hidden = false;
  button.addEventListener("click", () => setTurning(!turning));
  setTurning(turning);
  darkScheme.addEventListener("change", () => tiles.forEach(draw));

  const more = document.getElementById("more-clouds");
  if (more) {
    const grid = tiles[0].canvas.closest(".tiles");
    grid.classList.add("few");
    more.hidden = false;
    more.addEventListener("click", () => { grid.classList.remove("few"); more.hidden = true; });
  }
})();

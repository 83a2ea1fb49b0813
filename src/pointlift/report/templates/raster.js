// Draws a cloud without a graphics card: points as small discs in a depth buffer, lit by their normals and darkened
// where their neighbours in the picture are nearer (eye-dome lighting, Boucheny 2009), so that few points read as a
// surface. The points lie in random order, so the first part of them is a fair picture of all.
const Clouds = (() => {
  const DISTANCE = 3.4; // of the eye from the centre of the unit ball
  const DARKER = Float32Array.from({ length: 257 }, (_, i) => Math.exp(-1.7 * 0.8 * (i / 256)));
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // lightness rises evenly
  const AROUND = [[33, 102, 172], [115, 160, 203], [176, 176, 172], [226, 148, 78], [194, 65, 12]]; // zero is grey
  const KINDS = [
    [11, 102, 173], [217, 95, 14], [27, 143, 106], [194, 75, 150], [150, 112, 40], [112, 92, 190], [96, 150, 30],
    [190, 40, 60], [60, 150, 190], [120, 120, 120], [230, 170, 40], [90, 70, 60],
  ];

  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  function between(stops, t) {
    const at = Math.max(0, Math.min(1, t)) * (stops.length - 1);
    const i = Math.min(stops.length - 2, Math.floor(at));
    return stops[i].map((low, k) => low + (stops[i + 1][k] - low) * (at - i));
  }

  // Right-handed, with the up axis of the cloud upwards on screen: columns are right, up, towards the eye.
  function decode(packed, up) {
    const { n } = packed;
    const places = new Int16Array(bytes(packed.xyz).buffer);
    const sides = new Int8Array(bytes(packed.normal).buffer);
    const [right, high, front, sign] = { x: [1, 0, 2, -1], y: [0, 1, 2, 1], z: [0, 2, 1, -1] }[up];
    const xyz = new Float32Array(3 * n);
    const normal = new Float32Array(3 * n);
    for (let i = 0; i < n; i++) {
      const k = 3 * i;
      xyz[k] = places[k + right] / 32767;
      xyz[k + 1] = places[k + high] / 32767;
      xyz[k + 2] = (sign * places[k + front]) / 32767;
      normal[k] = sides[k + right] / 127;
      normal[k + 1] = sides[k + high] / 127;
      normal[k + 2] = (sign * sides[k + front]) / 127;
    }
    return { n, of: packed.of, xyz, normal, bright: new Float32Array(n), low: packed.low[high], high: packed.high[high], packed };
  }

  const modes = (packed) => ["plain", "height", ...packed.colours.map((colouring) => colouring.title)];

  const kindColour = (colouring, i) => colouring.palette[i] ?? KINDS[i % KINDS.length];

  // Colours and names of all classes that occur in some of these clouds.
  function kinds(several, mode) {
    const there = new Map();
    for (const packed of several) {
      const colouring = packed.colours.find((c) => c.title === mode && c.kind === "classes");
      if (!colouring) continue;
      for (const i of new Set(bytes(colouring.data))) there.set(i, [`rgb(${kindColour(colouring, i)})`, colouring.names[i] ?? String(i)]);
    }
    return [...there.keys()].sort((a, b) => a - b).map((i) => there.get(i));
  }

  // Red, green and blue of every point, and the legend that says what they mean.
  function colours(cloud, mode, plain) {
    const rgb = new Uint8Array(3 * cloud.n);
    const colouring = cloud.packed.colours.find((c) => c.title === mode);
    const table = Array.from({ length: 256 });
    const paint = (index) => { for (let i = 0; i < cloud.n; i++) rgb.set(table[index(i)], 3 * i); };
    const css = (stops) => `linear-gradient(90deg, ${stops.map((c) => `rgb(${c})`).join(", ")})`;
    if (colouring?.kind === "rgb") {
      rgb.set(bytes(colouring.data));
      return { rgb, legend: null };
    }
    if (colouring?.kind === "classes") {
      const data = bytes(colouring.data);
      for (let i = 0; i < 256; i++) table[i] = kindColour(colouring, i);
      paint((i) => data[i]);
      return { rgb, legend: { kinds: kinds([cloud.packed], mode) } };
    }
    if (colouring) {
      const data = bytes(colouring.data);
      for (let i = 0; i < 256; i++) table[i] = between(AROUND, (i - 1) / 254);
      paint((i) => data[i]);
      const largest = String(colouring.largest);
      return { rgb, legend: { gradient: css(AROUND), marks: [`−${largest}`, "0", `+${largest}`], ends: colouring.ends } };
    }
    if (mode === "height") {
      let low = Infinity, high = -Infinity;
      for (let i = 0; i < cloud.n; i++) { low = Math.min(low, cloud.xyz[3 * i + 1]); high = Math.max(high, cloud.xyz[3 * i + 1]); }
      for (let i = 0; i < 256; i++) table[i] = between(RAMP, i / 255);
      paint((i) => Math.round((255 * (cloud.xyz[3 * i + 1] - low)) / (high - low || 1)));
      const mark = (v) => String(Number(v.toPrecision(4)));
      return { rgb, legend: { gradient: css(RAMP), marks: [mark(cloud.low), mark(cloud.high)], ends: ["low", "high"] } };
    }
    for (let i = 0; i < cloud.n; i++) rgb.set(plain, 3 * i);
    return { rgb, legend: null };
  }

  class Raster {
    constructor(width, height) {
      this.resize(width, height);
    }

    resize(width, height) {
      this.width = width;
      this.height = height;
      this.reach = Math.max(2, Math.round(Math.min(width, height) / 107)); // pixels to the neighbours that may shade
      this.pad = this.reach * width + this.reach; // so that looking at neighbours never leaves the buffer
      this.depth = new Float32Array(width * height + 2 * this.pad);
      this.owner = new Int32Array(width * height);
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }

    // The first `count` points of a cloud as an image. `veil` is the grey that the far side fades to, `density` the
    // number of points that discs are sized for: between `count` and all of them while a cloud only moves.
    draw(cloud, view, rgb, veil, count = cloud.n, density = count) {
      const box = this.splat(cloud, view, Math.min(count, cloud.n), Math.min(density, cloud.n));
      this.shade(box, cloud.bright, rgb, veil);
      return this.image;
    }

    splat({ xyz, normal, bright }, { yaw, pitch, zoom, panX, panY }, count, density) {
      const { width, height, depth, owner, pad } = this;
      depth.fill(Infinity);
      let left = width, top = height, right = -1, bottom = -1;
      const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
      const side = Math.min(width, height);
      const focal = 0.47 * side * zoom * Math.sqrt(DISTANCE * DISTANCE - 1);
      const size = Math.min(0.06, 1.3 / Math.sqrt(density)) * focal;
      const middleX = width / 2 + panX * side, middleY = height / 2 + panY * side;
      for (let i = 0; i < count; i++) {
        const k3 = 3 * i;
        const x = xyz[k3], y = xyz[k3 + 1], z = xyz[k3 + 2];
        const front = cy * z - sy * x;
        const far = DISTANCE - (cp * front + sp * y);
        const px = middleX + (focal * (cy * x + sy * z)) / far;
        const py = middleY - (focal * (cp * y - sp * front)) / far;
        const r = Math.max(0.8, size / far);
        const x0 = Math.max(0, Math.ceil(px - r)), x1 = Math.min(width - 1, Math.floor(px + r));
        const y0 = Math.max(0, Math.ceil(py - r)), y1 = Math.min(height - 1, Math.floor(py + r));
        if (x1 < x0 || y1 < y0) continue;

        // Light from the upper left, in front. A seen surface faces the eye, which settles the normal's side.
        const a = normal[k3], b = normal[k3 + 1], c = normal[k3 + 2];
        const back = cy * c - sy * a;
        const toEye = cp * back + sp * b;
        const lit = -0.46 * (cy * a + sy * c) + 0.62 * (cp * b - sp * back) + 0.64 * toEye;
        bright[i] = 0.5 + 0.5 * (toEye < 0 ? -lit : lit);

        if (x0 < left) left = x0;
        if (y0 < top) top = y0;
        if (x1 > right) right = x1;
        if (y1 > bottom) bottom = y1;
        if (r < 1.5) { // too small to look round
          for (let v = y0; v <= y1; v++) {
            for (let k = v * width + x0, end = v * width + x1; k <= end; k++) {
              if (far < depth[k + pad]) { depth[k + pad] = far; owner[k] = i; }
            }
          }
          continue;
        }
        const inverse = 1 / (r * r);
        for (let v = y0; v <= y1; v++) {
          for (let u = x0; u <= x1; u++) {
            const square = ((u - px) * (u - px) + (v - py) * (v - py)) * inverse;
            if (square > 1) continue;
            const k = v * width + u;
            const d = far + 0.02 * square; // a shallow bulge separates neighbouring points
            if (d < depth[k + pad]) { depth[k + pad] = d; owner[k] = i; }
          }
        }
      }
      return [left, top, right, bottom];
    }

    shade([left, top, right, bottom], bright, rgb, veil) {
      const { width, depth, owner, pad, pixels, reach } = this;
      pixels.fill(0);
      const down = reach * width;
      for (let v = top; v <= bottom; v++) {
        for (let k = v * width + left, end = v * width + right; k <= end; k++) {
          const at = k + pad;
          const d = depth[at];
          if (d === Infinity) continue;
          let covered = 0;
          const e = d - depth[at + reach], w = d - depth[at - reach], s = d - depth[at + down], n = d - depth[at - down];
          if (e > 0) covered += e < 0.2 ? e : 0.2;
          if (w > 0) covered += w < 0.2 ? w : 0.2;
          if (s > 0) covered += s < 0.2 ? s : 0.2;
          if (n > 0) covered += n < 0.2 ? n : 0.2;
          const near = (DISTANCE + 1 - d) / 2; // 1 in front, 0 behind
          const haze = 0.36 * (1 - (near < 0 ? 0 : near > 1 ? 1 : near));
          const i = owner[k];
          const light = bright[i];
          const white = light > 0.8 ? (light - 0.8) * 1.1 : 0;
          const level = DARKER[(covered * 320) | 0] * (0.52 + 0.72 * light * light) * (1 - white) * (1 - haze);
          const added = 255 * white * (1 - haze) + veil * haze;
          const red = rgb[3 * i] * level + added, green = rgb[3 * i + 1] * level + added, blue = rgb[3 * i + 2] * level + added;
          pixels[k] = 0xff000000 | ((blue > 255 ? 255 : blue) << 16) | ((green > 255 ? 255 : green) << 8) | (red > 255 ? 255 : red);
        }
      }
    }
  }

  const START = { yaw: 0.6, pitch: 0.32, zoom: 1, panX: 0, panY: 0 };
  return { Raster, START, decode, modes, colours, kinds };
})();

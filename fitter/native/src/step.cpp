// One training step of plain Gaussians: activation, projection, tile lists, blending, loss, gradient, Adam.
#include "step.h"

static F sigmoid(F x) { return 1.f / (exp2(clamp(-LOG2E * x, set(-100.f), set(100.f))) + 1.f); }

Sixteen activated(const Training& training, int64_t base) {
  Sixteen g;
  auto value = [&](int k) { return load(training.values + k * training.stride + base); };
  for (int k = 0; k < 3; k++) {
    g.mean[k] = value(MEAN + k);
    g.scale[k] = exp2(clamp(LOG2E * value(LOG_SCALE + k), set(-120.f), set(120.f)));
    g.color[k] = clamp(value(COLOR + k), set(0.f), set(1.f));
  }
  for (int k = 0; k < 4; k++) g.quat[k] = value(QUAT + k);
  g.opacity = sigmoid(value(LOGIT));
  return g;
}

// Projects all Gaussians and lists them by tile; returns the sum of the products of their scales, or -1 without memory.
double lay_out(Fit& fit, const Training& training, const Camera& camera) {
  View& view = fit.view;
  if (!begin_view(view, camera, training.count)) return -1;
  const size_t rows = size_t(training.stride) * RECORD, capacity = view.sums.capacity;
  if (!view.sums.room(rows)) return -1;
  if (view.sums.capacity != capacity) memset(view.sums.data, 0, sizeof(float) * view.sums.capacity);
  if (!fit.image.room(size_t(3 * view.plane)) || !fit.slopes.room(size_t(3 * view.plane))) return -1;
  double volume = 0;
  for (int64_t base = 0; base < training.count; base += LANES) {
    const Sixteen g = activated(training, base);
    const uint32_t lanes = project(view, base, g, nullptr, nullptr);
    if (lanes) volume += double(sum(only(mask_of(lanes), g.scale[0] * g.scale[1] * g.scale[2])));
  }
  return list_tiles(view) ? volume : -1;
}

// Rows and columns y0, y1, x0, x1 outside which picture and reference are background: those of the silhouette and of
// all tiles with Gaussians, widened by the window's reach, so that SSIM is 1 beyond; they hold a window.
static void loss_box(const View& view, const int* silhouette, int* box) {
  for (int k = 0; k < 4; k++) box[k] = silhouette[k];
  for (int y = 0; y < view.tiles_y; y++)
    for (int x = 0; x < view.tiles_x; x++) {
      const size_t t = size_t(y) * view.tiles_x + x;
      if (view.offsets[t] == view.offsets[t + 1]) continue;
      const int tile[4] = {y * TILE, y * TILE + TILE, x * TILE, x * TILE + TILE};
      for (int k = 0; k < 4; k += 2) {
        box[k] = tile[k] < box[k] ? tile[k] : box[k];
        box[k + 1] = tile[k + 1] > box[k + 1] ? tile[k + 1] : box[k + 1];
      }
    }
  const int sizes[2] = {view.camera.height, view.camera.width};
  for (int k = 0; k < 4; k += 2) {
    const int size = sizes[k / 2];
    int from = box[k] - WINDOW_REACH, end = box[k + 1] + WINDOW_REACH;
    from = from < size - WINDOW ? from : size - WINDOW, from = from > 0 ? from : 0;
    end = end > from + WINDOW ? end : from + WINDOW, end = end < size ? end : size;
    box[k] = from, box[k + 1] = end;
  }
}

// Gradient of the trained values of Gaussians base to base + 15; adds what growth wants to know to the statistics.
static void chain(const View& view, const Training& training, int64_t base, float share, float volume_each, F* gradient) {
  for (int k = 0; k < PARAMETERS; k++) gradient[k] = set(0.f);
  uint32_t lanes = 0;
  for (int lane = 0; lane < LANES; lane++) lanes |= uint32_t(view.boxes[size_t(base + lane)].x1 > 0) << lane;
  if (!lanes) return;
  const M drawn = mask_of(lanes);
  const Sixteen g = activated(training, base);
  Slopes slopes;
  if (project_backward(view, base, g, slopes)) {
    for (int k = 0; k < 3; k++) {
      gradient[MEAN + k] = slopes.mean[k];
      gradient[LOG_SCALE + k] = slopes.scale[k] * g.scale[k];
      // the clamp passes what it leaves as it is, bounds included
      gradient[COLOR + k] = only(eq(g.color[k], load(training.values + (COLOR + k) * training.stride + base)), slopes.color[k]);
    }
    for (int k = 0; k < 4; k++) gradient[QUAT + k] = slopes.quat[k];
    gradient[LOGIT] = slopes.opacity * g.opacity * (1.f - g.opacity);
    const F x = slopes.screen[0] * (0.5f * float(view.camera.width)), y = slopes.screen[1] * (0.5f * float(view.camera.height));
    store(training.screen + base, fma(sqrt(fma(x, x, y * y)), set(1.f / share), load(training.screen + base)));
  }
  const F each = only(drawn, volume_each * g.scale[0] * g.scale[1] * g.scale[2]);
  for (int k = 0; k < 3; k++) gradient[LOG_SCALE + k] = gradient[LOG_SCALE + k] + each;
  const float pixels = float(view.camera.width) * float(view.camera.height);
  store(training.views + base, load(training.views + base) + only(drawn, set(1.f)));
  store(training.weights + base, fma(slopes.weight, set(1.f / pixels), load(training.weights + base)));
}

// Adam (Kingma and Ba 2015) with torch's order of operations and eps = 1e-15
static void adam(const Training& training, int64_t base, const F* gradient) {
  for (int k = 0; k < PARAMETERS; k++) {
    const int64_t at = k * training.stride + base;
    const F g = gradient[k];
    const F m = fma(set(0.9f), load(training.first_moments + at), 0.1f * g);
    const F v = fma(set(0.999f), load(training.second_moments + at), 0.001f * g * g);
    store(training.first_moments + at, m), store(training.second_moments + at, v);
    const F length = fma(sqrt(v), set(training.unbias), set(1e-15f));
    store(training.values + at, load(training.values + at) - training.rates[k] * m / length);
  }
}

// One view of a step; `share` is its part of the loss, 1 / number of views. The step's last view updates the values.
// losses: L1, L2, SSIM, and the mean product of the scales of the Gaussians in view.
bool step(Fit& fit, const Training& training, const Camera& camera, const uint8_t* rgba, const int* silhouette, float share,
          bool first, bool last, double losses[4]) {
  const double volume = lay_out(fit, training, camera);
  if (volume < 0) return false;
  View& view = fit.view;
  int box[4];
  loss_box(view, silhouette, box);
  blend(view, 0, view.tiles(), box, fit.image.data, false);
  Reference reference;
  reference.rgba = rgba, reference.width = camera.width, reference.height = camera.height;
  for (int k = 0; k < 3; k++) reference.background[k] = camera.background[k];
  const double pixels = 3.0 * camera.width * camera.height;
  const double windows = 3.0 * (camera.width - WINDOW_REACH) * (camera.height - WINDOW_REACH);
  double sums[3];
  if (!photometric(fit.rows, fit.image.data, view.pitch, view.plane, reference, box, float(training.l1 * share / pixels),
                   float(training.l2 * share / pixels), float(-training.ssim * share / windows), fit.slopes.data, sums))
    return false;
  losses[0] = sums[0] / pixels, losses[1] = sums[1] / pixels, losses[2] = 1 + sums[2] / windows;
  losses[3] = view.shown ? volume / double(view.shown) : 0;
  blend_backward(view, 0, view.tiles(), fit.image.data, fit.slopes.data, nullptr);
  const float volume_each = view.shown ? training.volume * share / float(view.shown) : 0;
  for (int64_t base = 0; base < training.count; base += LANES) {
    F gradient[PARAMETERS];
    chain(view, training, base, share, volume_each, gradient);
    for (int row = 0; row < LANES; row++) store(&view.sums[size_t(base + row) * RECORD], set(0.f));
    if (!first)
      for (int k = 0; k < PARAMETERS; k++) gradient[k] = gradient[k] + load(training.gradients + k * training.stride + base);
    if (last)
      adam(training, base, gradient);
    else
      for (int k = 0; k < PARAMETERS; k++) store(training.gradients + k * training.stride + base, gradient[k]);
  }
  return true;
}

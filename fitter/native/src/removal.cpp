// The change that the removal of each Gaussian would make to a picture: the measure by which a fit keeps its Gaussians.
#include "ellipse.h"
#include "step.h"

// Adds to costs [count] of each Gaussian the squared change of the image without it, over pixels and channels.
//
// A pixel is C = before + w c + T (1 - a) rest, with w = T a. Without the Gaussian what lies behind is seen by
// 1 / (1 - a) more, so that the change is w c - a / (1 - a) behind, where behind = T (1 - a) rest is the finished image
// less what has been drawn up to it.
static void add_costs(const View& view, const float* image, float* costs) {
  const Camera& camera = view.camera;
  const F threshold = set(LOG2_ALPHA_MIN), most = set(camera.max_alpha), least = set(TRANSMITTANCE_MIN), zero = set(0.f);
  for (int64_t t = 0; t < view.tiles(); t++) {
    int64_t j = view.offsets[size_t(t)];
    const int64_t end = view.ends[size_t(t)];
    if (j >= end) continue;
    const int left = int(t % view.tiles_x) * TILE, top = int(t / view.tiles_x) * TILE;
    const F x = load(BLOCK_X) + (float(left) + 0.5f), y = load(BLOCK_Y) + (float(top) + 0.5f);
    F T[4], red[4], green[4], blue[4];
    M live[4];
    UNROLL for (int k = 0; k < 4; k++) {
      const float* from = image + size_t(top + (k >> 1) * 4) * view.pitch + left + (k & 1) * 4;
      red[k] = load_block(from, view.pitch), green[k] = load_block(from + view.plane, view.pitch);
      blue[k] = load_block(from + 2 * view.plane, view.pitch);
      live[k] = inside(camera, left + (k & 1) * 4, top + (k >> 1) * 4);
      T[k] = set(1.f);
    }
    for (; j < end; j++) {
      const size_t g = view.pairs[size_t(j)] >> 4;
      const float* r = view.records.data + g * RECORD;
      const Ellipse ellipse(r, x, y);
      F cost = zero;
      UNROLL for (int k = 0; k < 4; k++) {
        if (!(view.pairs[size_t(j)] >> k & 1)) continue;
        const F e = ellipse.at(k), before = T[k];
        const M met = ge(live[k], e, threshold);
        if (!any(met)) continue;
        const F a = min(exp2(e), most);
        const M drawn = gt(met, fnma(a, before, before), least);
        live[k] = but_not(live[k], but_not(met, drawn));
        const F w = only(drawn, a * before), more = only(drawn, a / (1.f - a));
        const F own_red = w * r[RED], own_green = w * r[GREEN], own_blue = w * r[BLUE];
        T[k] = before - w;
        red[k] = red[k] - own_red, green[k] = green[k] - own_green, blue[k] = blue[k] - own_blue;
        const F d_red = fnma(more, red[k], own_red), d_green = fnma(more, green[k], own_green);
        const F d_blue = fnma(more, blue[k], own_blue);
        cost = fma(d_red, d_red, fma(d_green, d_green, fma(d_blue, d_blue, cost)));
      }
      costs[g] += sum(cost);
    }
  }
}

// Sum of squares of the difference between the image and a view over the camera's background
static double squared_error(const View& view, const float* image, const uint8_t* rgba) {
  const Camera& camera = view.camera;
  double total = 0;
  for (int y = 0; y < camera.height; y++) {
    const uint8_t* from = rgba + size_t(y) * camera.width * 4;
    double row = 0;
    for (int x = 0; x < camera.width; x++) {
      const float alpha = from[4 * x + 3] * (1.f / 255);
      for (int k = 0; k < 3; k++) {
        const float wanted = from[4 * x + k] * (1.f / 255) * alpha + (1.f - alpha) * camera.background[k];
        const float off = image[k * view.plane + y * view.pitch + x] - wanted;
        row += double(off) * double(off);
      }
    }
    total += row;
  }
  return total;
}

// Draws a view, adds to costs [count] what the removal of each Gaussian would change, and sets the squared error of the
// image now.
bool removal(Fit& fit, const Training& training, const Camera& camera, const uint8_t* rgba, float* costs, double& error) {
  if (lay_out(fit, training, camera) < 0) return false;
  blend(fit.view, 0, fit.view.tiles(), nullptr, fit.image.data, false);
  add_costs(fit.view, fit.image.data, costs);
  error = squared_error(fit.view, fit.image.data, rgba);
  return true;
}

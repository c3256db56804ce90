// A whole training step of plain Gaussians.
#pragma once
#include "photometric.h"

// Rows of the planes [PARAMETERS][stride] of trained values, as `Plain` has them: means, logarithms of the scales,
// quaternions of any norm, opacities before the sigmoid, colours before they are clamped to [0, 1].
enum { MEAN, LOG_SCALE = 3, QUAT = 6, LOGIT = 10, COLOR = 11, PARAMETERS = 14 };

// Shared with Python (ctypes).
struct Training {
  float *values, *first_moments, *second_moments, *gradients;  // planes; stride is a multiple of LANES
  float *screen, *views, *weights;  // per Gaussian: sum of the norm of the screen gradient in half-image units, number of
                                    // views in which it was drawn, sum of its blending weight as a share of the picture
  int64_t stride, count;
  float rates[PARAMETERS];          // learning rates, over the first moment's bias
  float unbias;                     // 1 / root of the second moment's bias
  float l1, l2, ssim, volume;       // weights of the loss
};

// What a fit keeps from step to step
struct Fit {
  View view;
  Rows rows;
  Buffer<float> image, slopes;
};

Sixteen activated(const Training& training, int64_t base);
double lay_out(Fit& fit, const Training& training, const Camera& camera);
bool step(Fit& fit, const Training& training, const Camera& camera, const uint8_t* rgba, const int* silhouette, float share,
          bool first, bool last, double losses[4]);
bool removal(Fit& fit, const Training& training, const Camera& camera, const uint8_t* rgba, float* costs, double& error);

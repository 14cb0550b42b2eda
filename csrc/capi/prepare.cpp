// What: the checks of a study and the way to the common grid.
// Layout: as in prepare.h.
// Source: the limits are those of rmr_sdk/scan.py and preprocess.py.
#include "prepare.h"

#include <algorithm>
#include <cmath>

#include "common_grid.h"
#include "failure.h"
#include "regrid.h"
#include "text.h"

namespace rmr::capi {
namespace {

constexpr double kLeastSpacingMm = 0.1, kMostSpacingMm = 25.0, kMostFieldMm = 1000.0, kFullCoverage = 0.95;
constexpr const char* kUnitFix = "Check the unit of the affine: it must give millimetres.";

struct Scan {
  const Contrast* contrast;
  AxisMap axes;
  Voxels voxels;  // in the manifest's orientation
};

const Contrast& find_contrast(const std::vector<Contrast>& study, const std::string& name) {
  std::vector<std::string> found;
  for (const Contrast& contrast : study) {
    if (contrast.name == name) return contrast;
    found.push_back(contrast.name);
  }
  fail(kStudyError, "contrast \"" + name + "\" is missing (found: " + quoted(found) + ").",
       "Pass one volume per contrast of the bundle.");
}

void check_size(const Grid& grid) {
  const Point3 spacing = grid.spacing_mm();
  const auto [least, most] = std::minmax_element(spacing.begin(), spacing.end());
  if (*least < kLeastSpacingMm || *most > kMostSpacingMm) {
    fail(kGeometryError, "its voxels are " + times(spacing, "%.3g") + " mm, which no scan of a head has.", kUnitFix);
  }
  Point3 field{};
  for (size_t axis = 0; axis < 3; ++axis) field[axis] = double(grid.shape()[axis]) * spacing[axis];
  if (*std::max_element(field.begin(), field.end()) > kMostFieldMm) {
    fail(kGeometryError, "its field of view is " + times(field, "%.0f") + " mm, which no scan of a head has.",
         kUnitFix);
  }
}

struct Extremes {
  double least, most;
  int64_t non_finite;
};

template <class T>
Extremes extremes_of(const Source<T>& source) {
  Extremes found{INFINITY, -INFINITY, 0};
  for_each_voxel(source, [&](T value) {
    const auto number = static_cast<double>(value);
    if (!std::isfinite(number)) {
      ++found.non_finite;
      return;
    }
    found.least = std::min(found.least, number);
    found.most = std::max(found.most, number);
  });
  return found;
}

// A copy in which voxels that are not finite are 0.
Voxels zeroed(const Voxels& voxels, std::vector<char>& storage) {
  storage.resize(static_cast<size_t>(voxels.shape[0] * voxels.shape[1] * voxels.shape[2]) * sizeof(float));
  auto* out = reinterpret_cast<float*>(storage.data());
  for_each_voxel(source_of<float>(voxels), [&](float value) { *out++ = std::isfinite(value) ? value : 0.0f; });
  return {voxels.dtype, storage.data(), voxels.shape, c_strides(voxels.shape)};
}

// Voxels that are finite and not all the same.
Voxels checked_voxels(const Contrast& contrast, bool zero_non_finite, Prepared& prepared) {
  Extremes found = visit(contrast.voxels, [](const auto& source) { return extremes_of(source); });
  const auto& shape = contrast.voxels.shape;
  Voxels voxels = contrast.voxels;
  if (found.non_finite > 0) {
    if (!zero_non_finite) {
      fail(kStudyError,
           "it holds NaN or infinite voxels (" + std::to_string(found.non_finite) + " of " +
               std::to_string(shape[0] * shape[1] * shape[2]) + ").",
           "Pass RMR_NON_FINITE_ZERO to take them as background.");
    }
    prepared.warnings.push_back(contrast.name + ": " + std::to_string(found.non_finite) +
                                " voxels that are NaN or infinite were taken as background");
    voxels = zeroed(voxels, prepared.storage.emplace_back());
    found.least = std::min(found.least, 0.0);
    found.most = std::max(found.most, 0.0);
  }
  if (found.least == found.most) {
    fail(kStudyError, "every voxel is " + number(found.least) + ".", "Check that this is the contrast it should be.");
  }
  return voxels;
}

// The share of the common grid that a contrast covers; refused where it covers nothing.
double checked_coverage(const Grid& own, const Grid& grid, const std::string& reference) {
  if (own.same_place(grid)) return 1.0;
  const double coverage = own.coverage_of(grid);
  if (coverage == 0.0) {
    fail(kGeometryError, "it does not overlap the reference \"" + reference + "\" in space.",
         "Check that all contrasts are of one session and that their affines are right.");
  }
  return coverage;
}

void check_place(const Grid& own, const Grid& reference_grid, const std::string& reference, bool resample) {
  if (resample) {
    checked_coverage(own, reference_grid, reference);
  } else if (!own.same_place(reference_grid)) {
    fail(kGeometryError,
         "it is on another grid than the reference \"" + reference + "\", and RMR_ALIGN_NONE does not resample.",
         "Resample it beforehand, or use RMR_ALIGN_HEADER.");
  }
}

Voxels bring_to(const Grid& grid, const Scan& scan, int threads, std::vector<char>& storage) {
  const Interpolation mode = image_mode(scan.axes.grid, grid);
  storage.resize(static_cast<size_t>(grid.voxels()) * sizeof(float));
  regrid(scan.voxels, scan.axes.grid, grid, mode, threads, storage.data());
  return {Dtype::kFloat32, storage.data(), grid.shape(), c_strides(grid.shape())};
}

void add_contrast(Prepared& prepared, const Scan& scan, const Manifest& manifest, const PrepareOptions& options) {
  const std::string& reference = manifest.contrasts[options.reference];
  const double coverage = checked_coverage(scan.axes.grid, prepared.grid, reference);
  if (coverage < kFullCoverage) {
    prepared.warnings.push_back(scan.contrast->name + ": covers " + number(100.0 * coverage, "%.0f") +
                                "% of the field of view of the " + reference + "; the rest was taken as background");
  }
  const bool same = scan.axes.grid.same_place(prepared.grid);
  prepared.arrays.push_back(same ? scan.voxels
                                 : bring_to(prepared.grid, scan, options.threads, prepared.storage.emplace_back()));
  prepared.intensity.push_back(fit_normalisation(prepared.arrays.back(), manifest.normalisation));
}

AxisMap checked_axes(const Contrast& contrast, const Manifest& manifest) {
  const Grid grid(contrast.voxels.shape, contrast.affine);
  check_size(grid);
  return reorient(grid, manifest.orientation);
}

}  // namespace

int64_t Prepared::bytes() const {
  int64_t total = 0;
  for (const auto& each : storage) total += static_cast<int64_t>(each.size());
  return total;
}

Prepared prepare(const std::vector<Contrast>& study, const Manifest& manifest, const PrepareOptions& options) {
  const std::string& reference = manifest.contrasts[options.reference];
  const AxisMap axes = naming(reference, [&] { return checked_axes(find_contrast(study, reference), manifest); });
  const std::optional<Grid> common = choose_grid(axes.grid, manifest);
  Prepared prepared(axes, common.value_or(axes.grid));
  prepared.resampled = common.has_value();

  std::vector<Scan> scans;
  for (const std::string& name : manifest.contrasts) {
    const Contrast& contrast = find_contrast(study, name);
    naming(name, [&] {
      const AxisMap own = checked_axes(contrast, manifest);
      const Voxels voxels = checked_voxels(contrast, options.zero_non_finite, prepared);
      scans.push_back({&contrast, own, turned(voxels, own)});
    });
  }
  for (const Scan& scan : scans) {
    const std::string& name = scan.contrast->name;
    if (name != reference) {
      naming(name, [&] { check_place(scan.axes.grid, axes.grid, reference, options.resample); });
    }
  }
  for (const Scan& scan : scans) {
    naming(scan.contrast->name, [&] { add_contrast(prepared, scan, manifest, options); });
  }
  return prepared;
}

}  // namespace rmr::capi

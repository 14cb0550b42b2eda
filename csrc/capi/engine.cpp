// What: what OpenVINO is asked to do with a bundle's graph.
// Layout: every tile is computed by one thread, and as many as there are threads side by side, so that results do not
//         depend on their number.
// Source: own; docs/decisions/0002-one-thread-per-tile.md.
#include "engine.h"

#include <algorithm>
#include <openvino/runtime/core.hpp>
#include <sstream>

#include "cache.h"
#include "cores.h"
#include "failure.h"
#include "golden.h"
#include "openvino_session.h"
#include "sha256.h"
#include "text.h"

namespace rmr::capi {
namespace {

constexpr int kMostStreams = 16;
constexpr const char* kDevice = "CPU";

struct Precision {
  const char *name, *capability, *hint;
  std::vector<std::string> graphs;  // that serve it, the best first
};

const Precision& precision_of(const std::string& name) {
  static const std::vector<Precision> all = {{"fp32", "FP32", "f32", {"fp32"}},
                                             {"bf16", "BF16", "bf16", {"fp32"}},
                                             {"fp16", "FP16", "f16", {"fp16", "fp32"}},
                                             {"int8", "INT8", "f32", {"int8"}}};
  return *std::find_if(all.begin(), all.end(), [&](const Precision& each) { return name == each.name; });
}

// One core for the process, never destroyed: the CPU plugin takes a signal stack away with its core, and of two cores
// that overlap the later one puts back a stack that the earlier one has freed, so that the next signal ends the
// process.
ov::Core& shared_core() {
  static ov::Core* const core = new ov::Core;
  return *core;
}

class OpenVinoEngine : public Engine {
 public:
  OpenVinoEngine(const Bundle& bundle, const EngineRequest& request) : bundle_(bundle) {
    choose_precision(request.precision);
    configure(request.threads);
    const EngineCache cache(request.cache_dir);
    const std::string key = capi::sha256(facts()).substr(0, 32);
    if (load(cache.load(key))) return;
    compile();
    self_test();
    if (cache.keeps()) warning_ = cache.store(key, exported());
  }

  const EngineInfo& info() const override { return info_; }
  const std::string& warning() const override { return warning_; }
  std::unique_ptr<Session> session() const override { return open_session(compiled_, bundle_.manifest(), info_.slots); }

 private:
  void choose_precision(const std::string& asked) {
    const std::vector<std::string> found = bundle_.manifest().precisions();
    const auto has = [&](const std::string& name) {
      return std::find(found.begin(), found.end(), name) != found.end();
    };
    for (const char* each : {"fp32", "bf16", "fp16", "int8"}) {
      if (precision_.empty() && (asked.empty() ? has(each) : asked == each)) precision_ = each;
    }
    const auto& graphs = precision_of(precision_).graphs;
    const auto graph = std::find_if(graphs.begin(), graphs.end(), has);
    if (graph == graphs.end()) {
      fail(kEngineMismatchError,
           "Bundle \"" + bundle_.manifest().name + "\" cannot run in " + precision_ + ": it has no " + graphs[0] +
               " graph (it has: " + quoted(found) + ").",
           "Choose another precision, or export the bundle with that one.");
    }
    graph_ = *graph;
    if (!is_capable(precision_of(precision_).capability)) {
      fail(kDeviceUnavailableError, "This CPU does not compute in " + precision_ + ".", "Choose another precision.");
    }
  }

  void configure(int threads) {
    const int streams = std::min(threads > 0 ? threads : usable_cores(), kMostStreams);
    // Around the integer layers of an int8 graph the rest costs as much again in f32 as in bf16.
    const bool narrow = precision_ == "int8" && is_capable("BF16");
    // Pinned threads of two processes would meet on the same first cores.
    config_ = {{"INFERENCE_PRECISION_HINT", std::string(narrow ? "bf16" : precision_of(precision_).hint)},
               {"NUM_STREAMS", std::to_string(streams)},
               {"INFERENCE_NUM_THREADS", std::to_string(streams)},
               {"ENABLE_CPU_PINNING", std::string("NO")}};
  }

  bool is_capable(const std::string& capability) const {
    const auto able = core_.get_property(kDevice, ov::device::capabilities);
    return std::find(able.begin(), able.end(), capability) != able.end();
  }

  // What makes a compiled and tested network invalid when it changes.
  std::string facts() const {
    std::ostringstream text;
    text << "1\n" << engine_version() << "\n" << core_.get_property(kDevice, ov::device::full_name) << "\n";
    text << cpu_identity() << "\n" << precision_ << "\n" << bundle_.graph(graph_).sha256 << "\n";
    text << bundle_.manifest().golden.sha256 << "\n";
    for (const auto& [name, value] : config_) text << name << "=" << value.as<std::string>() << "\n";
    const Deviation limit = golden_limit(precision_);
    text << limit.maximum << " " << limit.rms;
    return text.str();
  }

  bool load(const std::optional<std::string>& bytes) {
    if (!bytes) return false;
    try {
      std::istringstream stream(*bytes);
      compiled_ = core_.import_model(stream, kDevice, config_);
      read_back();
      return true;
    } catch (const std::exception&) {
      return false;  // it is made again
    }
  }

  void compile() {
    const std::string graph = bundle_.read(bundle_.graph(graph_));
    try {
      compiled_ = core_.compile_model(core_.read_model(graph, ov::Tensor()), kDevice, config_);
    } catch (const std::runtime_error& error) {
      fail(kEngineError,
           "OpenVINO cannot compile the " + graph_ + " graph of bundle \"" + bundle_.manifest().name +
               "\": " + last_line(error) + ".",
           kReport);
    }
    check_signature();
    read_back();
  }

  void read_back() {
    const auto type = compiled_.get_property(ov::hint::inference_precision);
    const std::string computed = type == ov::element::bf16 ? "bf16" : type == ov::element::f16 ? "fp16" : "fp32";
    if (precision_ == "int8" && count_int8_layers(compiled_) == 0) {
      fail(kDeviceUnavailableError, "OpenVINO runs nothing of the int8 graph in int8 on this CPU.",
           "Choose precision RMR_FP32 or RMR_BF16.");
    }
    info_ = {engine_version(), core_.get_property(kDevice, ov::device::full_name),
             precision_ == "int8" ? precision_ : computed, compiled_.get_property(ov::inference_num_threads),
             static_cast<int>(compiled_.get_property(ov::num_streams))};
  }

  void check_signature() const {
    const Manifest& manifest = bundle_.manifest();
    bool fits = compiled_.inputs().size() == manifest.contrasts.size() &&
                compiled_.outputs().size() == (manifest.classes.empty() ? 1 : 2);
    for (size_t i = 0; fits && i < manifest.contrasts.size(); ++i) {
      fits = has_port(compiled_.inputs(), manifest.input_name(i), 1);
    }
    fits = fits && has_port(compiled_.outputs(), "fused", 1);
    if (!manifest.classes.empty()) {
      fits = fits && has_port(compiled_.outputs(), "probability", manifest.classes.size());
    }
    if (!fits) {
      fail(kEngineMismatchError,
           "The inputs and outputs of the graph of bundle \"" + manifest.name + "\" are not those of its manifest.",
           "Export the bundle again.");
    }
  }

  bool has_port(const std::vector<ov::Output<const ov::Node>>& ports, const std::string& name, size_t channels) const {
    ov::PartialShape shape{1, static_cast<int64_t>(channels)};
    for (const int64_t extent : bundle_.manifest().tile_shape) shape.push_back(extent);
    return std::any_of(ports.begin(), ports.end(), [&](const auto& port) {
      return port.get_names().count(name) > 0 && port.get_partial_shape() == shape;
    });
  }

  void self_test() const {
    const Manifest& manifest = bundle_.manifest();
    GoldenTile golden = decode_golden(bundle_.read(manifest.golden), manifest);
    std::vector<float*> inputs;
    for (auto& input : golden.inputs) inputs.push_back(input.data());
    const std::unique_ptr<Session> queue = session();
    queue->submit(inputs);
    Predictions found;
    queue->collect(Clock::time_point::max(), found);
    const Deviation apart = golden.deviation(found.fused, found.probability, manifest.tile_voxels());
    const Deviation limit = golden_limit(info_.precision);
    if (!(apart.maximum <= limit.maximum && apart.rms <= limit.rms)) {
      fail(kEngineError,
           "Engine openvino in " + info_.precision + " does not reproduce the golden tile (root mean square " +
               number(apart.rms, "%.2g") + ", limit " + number(limit.rms, "%.2g") + "; largest " +
               number(apart.maximum, "%.2g") + ", limit " + number(limit.maximum, "%.2g") + ").",
           std::string("Choose another precision. ") + kReport);
    }
  }

  std::string exported() {
    std::ostringstream stream;
    compiled_.export_model(stream);
    return stream.str();
  }

  const Bundle& bundle_;
  ov::Core& core_ = shared_core();
  ov::AnyMap config_;
  ov::CompiledModel compiled_;
  std::string precision_, graph_, warning_;
  EngineInfo info_;
};

}  // namespace

std::unique_ptr<Engine> open_engine(const Bundle& bundle, const EngineRequest& request) {
  try {
    return std::make_unique<OpenVinoEngine>(bundle, request);
  } catch (const ov::Exception& error) {
    fail(kDeviceUnavailableError, "OpenVINO cannot be used: " + last_line(error) + ".",
         "Install OpenVINO with its CPU plugin and its ONNX frontend beside this library.");
  }
}

std::string engine_version() { return ov::get_openvino_version().buildNumber; }

}  // namespace rmr::capi

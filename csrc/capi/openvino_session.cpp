// What: the requests of openvino_session.h.
// Layout: idle requests, those in flight in the order of their tiles, and the one whose outputs were lent last.
// Source: own.
#include "openvino_session.h"

#include <algorithm>
#include <deque>
#include <openvino/core/model.hpp>
#include <openvino/runtime/infer_request.hpp>
#include <sstream>

#include "failure.h"

namespace rmr::capi {
namespace {

class OpenVinoSession : public Session {
 public:
  OpenVinoSession(ov::CompiledModel compiled, const Manifest& manifest, int slots) : manifest_(manifest), shape_{1, 1} {
    for (const int64_t extent : manifest.tile_shape) shape_.push_back(static_cast<size_t>(extent));
    // One more than the slots, so that the outputs last collected stay while all slots compute.
    for (int i = 0; i <= slots; ++i) idle_.push_back(compiled.create_infer_request());
  }

  ~OpenVinoSession() override {
    if (lent_) flying_.push_front(lent_);
    for (ov::InferRequest& request : flying_) quietly([&] { request.cancel(); });
    for (ov::InferRequest& request : flying_) quietly([&] { request.wait(); });
  }

  void submit(const std::vector<float*>& inputs) override {
    ov::InferRequest request = idle_.front();
    try {
      for (size_t i = 0; i < inputs.size(); ++i) {
        request.set_tensor(manifest_.input_name(i), ov::Tensor(ov::element::f32, shape_, inputs[i]));
      }
      request.start_async();
    } catch (const std::exception& error) {
      fail(kEngineError, "OpenVINO refuses the tile: " + last_line(error) + ".", kReport);
    }
    idle_.pop_front();
    flying_.push_back(request);
  }

  bool collect(Clock::time_point deadline, Predictions& predictions) override {
    if (lent_) idle_.push_back(lent_);
    lent_ = flying_.front();
    flying_.pop_front();
    try {
      if (!wait(lent_, deadline)) return false;
      predictions.fused = lent_.get_tensor("fused").data<float>();
      if (!manifest_.classes.empty()) predictions.probability = lent_.get_tensor("probability").data<float>();
    } catch (const std::exception& error) {
      fail(kEngineError, "OpenVINO failed on a tile: " + last_line(error) + ".", kReport);
    }
    return true;
  }

 private:
  static bool wait(ov::InferRequest& request, Clock::time_point deadline) {
    if (deadline == Clock::time_point::max()) {
      request.wait();
      return true;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    return request.wait_for(std::max(left, std::chrono::milliseconds(0)));
  }

  template <class Body>
  static void quietly(const Body& body) {
    try {
      body();
    } catch (const std::exception&) {  // how a cancelled request reports back
    }
  }

  const Manifest& manifest_;
  ov::Shape shape_;
  std::deque<ov::InferRequest> idle_, flying_;
  ov::InferRequest lent_;
};

}  // namespace

std::unique_ptr<Session> open_session(ov::CompiledModel compiled, const Manifest& manifest, int slots) {
  return std::make_unique<OpenVinoSession>(std::move(compiled), manifest, slots);
}

int count_int8_layers(const ov::CompiledModel& compiled) {
  const auto holds = [](const char* names, const std::string& name) {
    return (" " + std::string(names) + " ").find(" " + name + " ") != std::string::npos;
  };
  int count = 0;
  for (const auto& node : compiled.get_runtime_model()->get_ops()) {
    const ov::RTMap& facts = node->get_rt_info();
    const auto kind = facts.at("layerType").as<std::string>();
    const bool counts = holds("Convolution Deconvolution GroupConvolution ConvolutionBackpropData", kind) ||
                        holds("FullyConnected FullyConnectedQuantized FullyConnectedQuantizedLegacy MatMul", kind);
    if (counts && holds("i8 u8", facts.at("runtimePrecision").as<std::string>())) ++count;
  }
  return count;
}

std::string last_line(const std::exception& error) {
  std::istringstream lines(error.what());
  std::string last;
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  }
  last.erase(last.find_last_not_of(" .\r") + 1);
  return last.substr(0, 300);
}

}  // namespace rmr::capi

// What: the checks of array.h.
// Layout: -
// Source: as in array.h.
#include "array.h"

#include <cstdlib>

namespace rmr::bindings {
namespace {

std::string describe(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (const int64_t length : shape) {
    if (text.size() > 1) text += ", ";
    text += length < 0 ? "any" : std::to_string(length);
  }
  return text + ")";
}

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& shape, int64_t item) {
  std::vector<int64_t> strides(shape.size());
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = item;
    item *= shape[axis];
  }
  return strides;
}

bool present(const py::dict& facts, const char* key) { return facts.contains(key) && !facts[key].is_none(); }

uintptr_t stream_of(const py::object& value, const char* name) {
  const auto stream = value.cast<uintptr_t>();
  if (stream == 0) throw py::value_error(std::string(name) + " names stream 0, which the array interface leaves open.");
  return stream;
}

}  // namespace

Array::Array(std::string name, void* data, std::string code, int64_t item, std::vector<int64_t> shape,
             std::vector<int64_t> strides, bool writable, uintptr_t producer)
    : name_(std::move(name)),
      data_(data),
      code_(std::move(code)),
      item_(item),
      shape_(std::move(shape)),
      strides_(std::move(strides)),
      writable_(writable),
      producer_(producer) {
  if (item_ < 1) throw py::type_error(name_ + " must have elements of a numeric type.");
  if (reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(item_) != 0) {
    throw py::value_error(name_ + " must be aligned to its elements.");
  }
}

Array Array::of_host(const py::array& array, const char* name) {
  return {name,
          const_cast<void*>(array.data()),
          array.dtype().attr("str").cast<std::string>(),
          array.itemsize(),
          {array.shape(), array.shape() + array.ndim()},
          {array.strides(), array.strides() + array.ndim()},
          array.writeable()};
}

Array Array::of_device(const py::object& object, const char* name) {
  if (!py::hasattr(object, "__cuda_array_interface__")) {
    throw py::type_error(std::string(name) + " must be an array in device memory (__cuda_array_interface__).");
  }
  const py::dict facts = object.attr("__cuda_array_interface__");
  for (const char* key : {"typestr", "shape", "data"}) {
    if (!facts.contains(key)) throw py::type_error(std::string(name) + " has an array interface without " + key + ".");
  }
  const auto code = facts["typestr"].cast<std::string>();
  const auto item = code.size() < 3 ? 0 : static_cast<int64_t>(std::strtol(code.c_str() + 2, nullptr, 10));
  const auto shape = facts["shape"].cast<std::vector<int64_t>>();
  const auto [address, read_only] = facts["data"].cast<std::pair<uintptr_t, bool>>();
  if (present(facts, "mask")) throw py::type_error(std::string(name) + " must not be masked.");
  Array array{
      name,
      reinterpret_cast<void*>(address),
      code,
      item,
      shape,
      present(facts, "strides") ? facts["strides"].cast<std::vector<int64_t>>() : contiguous_strides(shape, item),
      !read_only,
      present(facts, "stream") ? stream_of(facts["stream"], name) : 0};
  if (address == 0 && !array.empty()) throw py::value_error(std::string(name) + " must not be null.");
  return array;
}

bool Array::empty() const {
  for (const int64_t length : shape_) {
    if (length == 0) return true;
  }
  return false;
}

Index3 Array::shape3() const {
  check_shape({-1, -1, -1});
  return {shape_[0], shape_[1], shape_[2]};
}

int64_t Array::stride(size_t axis) const {
  if (strides_[axis] % item_ != 0) throw py::value_error(name_ + " must be aligned to its elements.");
  return strides_[axis] / item_;
}

void Array::check_shape(const std::vector<int64_t>& shape) const {
  bool same = shape.size() == shape_.size();
  for (size_t axis = 0; same && axis < shape.size(); ++axis) {
    same = shape[axis] < 0 || shape[axis] == shape_[axis];
  }
  if (!same) {
    throw py::value_error(name_ + " must have the shape " + describe(shape) + ", not " + describe(shape_) + ".");
  }
}

void Array::check_contiguous() const {
  const std::vector<int64_t> strides = contiguous_strides(shape_, item_);
  for (size_t axis = 0; axis < shape_.size(); ++axis) {
    if (shape_[axis] == 0) return;
    if (shape_[axis] > 1 && strides_[axis] != strides[axis]) {
      throw py::value_error(name_ + " must be C-contiguous.");
    }
  }
}

void Array::refuse_type(const std::string& accepted) const {
  throw py::type_error(name_ + " must have the type " + accepted + ", not " + code_ + ".");
}

}  // namespace rmr::bindings

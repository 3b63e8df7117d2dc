// Vec<T> and String: growable arrays whose growth can fail with ENOMEM.
//
// For guest code, which has no exceptions. Indexes are checked (HUSK_ASSERT).
#pragma once

#include <string.h>

#include <new>
#include <span>
#include <string_view>
#include <utility>

#include "base/panic.h"
#include "base/result.h"
#include "base/types.h"

namespace husk {

template <typename T>
class Vec {
 public:
  Vec() = default;
  Vec(Vec&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), capacity_(std::exchange(other.capacity_, 0)) {}
  Vec& operator=(Vec&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  Vec(const Vec&) = delete;
  Vec& operator=(const Vec&) = delete;
  ~Vec() {
    clear();
    ::operator delete(data_);
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t index) {
    HUSK_ASSERT(index < size_);
    return data_[index];
  }
  const T& operator[](size_t index) const {
    HUSK_ASSERT(index < size_);
    return data_[index];
  }
  T& back() { return (*this)[size_ - 1]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  operator std::span<T>() { return {data_, size_}; }
  operator std::span<const T>() const { return {data_, size_}; }

  Result<void> reserve(size_t capacity) {
    if (capacity <= capacity_) return {};
    size_t bytes;
    if (!checked_mul(capacity, sizeof(T), &bytes)) return Error(ENOMEM);
    T* data = static_cast<T*>(::operator new(bytes, std::nothrow));
    if (data == nullptr) return Error(ENOMEM);
    for (size_t i = 0; i < size_; ++i) {
      new (&data[i]) T(std::move(data_[i]));
      data_[i].~T();
    }
    ::operator delete(data_);
    data_ = data;
    capacity_ = capacity;
    return {};
  }
  Result<void> push_back(T value) {
    if (size_ == capacity_) TRY(reserve(capacity_ == 0 ? 8 : capacity_ * 2));
    new (&data_[size_++]) T(std::move(value));
    return {};
  }
  Result<void> resize(size_t size) {
    TRY(reserve(size));
    while (size_ > size) pop_back();
    while (size_ < size) new (&data_[size_++]) T();
    return {};
  }
  void pop_back() {
    HUSK_ASSERT(size_ > 0);
    data_[--size_].~T();
  }
  void erase(size_t index) {
    HUSK_ASSERT(index < size_);
    for (size_t i = index; i + 1 < size_; ++i) data_[i] = std::move(data_[i + 1]);
    pop_back();
  }
  void clear() {
    while (size_ > 0) pop_back();
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// Bytes with a length and a NUL behind them; not necessarily text.
class String {
 public:
  String() = default;
  static Result<String> from(std::string_view text) {
    String result;
    TRY(result.append(text));
    return result;
  }
  Result<void> append(std::string_view text) {
    size_t old = size(), total;
    if (!checked_add(old + 1, text.size(), &total)) return Error(ENOMEM);
    TRY(bytes_.resize(total));
    if (!text.empty()) memcpy(bytes_.data() + old, text.data(), text.size());
    bytes_[old + text.size()] = '\0';
    return {};
  }
  void clear() { bytes_.clear(); }
  void truncate(size_t length) {
    HUSK_ASSERT(length <= size());
    if (bytes_.empty()) return;
    bytes_[length] = '\0';
    while (bytes_.size() > length + 1) bytes_.pop_back();
  }
  size_t size() const { return bytes_.empty() ? 0 : bytes_.size() - 1; }
  bool empty() const { return size() == 0; }
  const char* c_str() const { return bytes_.empty() ? "" : bytes_.data(); }
  std::string_view view() const { return {c_str(), size()}; }
  operator std::string_view() const { return view(); }

 private:
  Vec<char> bytes_;
};

}  // namespace husk

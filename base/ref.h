// Ref<T>: shared ownership with the count inside the object; Owned<T>: sole ownership.
//
// make_ref / make_owned never throw: they give ENOMEM. The count is atomic, so that
// a reference may be dropped on any CPU. T derives from RefCounted<T>.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "base/result.h"

namespace husk {

template <typename T>
class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;
  void ref() const { count_.fetch_add(1, std::memory_order_relaxed); }
  void unref() const {
    if (count_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete static_cast<const T*>(this);
  }
  unsigned ref_count() const { return count_.load(std::memory_order_relaxed); }

 private:
  mutable std::atomic<unsigned> count_{1};
};

template <typename T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}  // NOLINT: implicit by design
  // Takes over the reference that the caller holds.
  static Ref adopt(T* object) {
    Ref result;
    result.object_ = object;
    return result;
  }
  // Adds a reference.
  static Ref share(T* object) {
    if (object != nullptr) object->ref();
    return adopt(object);
  }
  Ref(const Ref& other) : object_(other.object_) {
    if (object_ != nullptr) object_->ref();
  }
  [[gnu::always_inline]] Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <typename U>
  requires(std::is_convertible_v<U*, T*>) Ref(Ref<U> other) : object_(other.leak()) {}  // NOLINT: implicit by design
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  // Nothing is left of it where the reference is known to have moved on.
  [[gnu::always_inline]] ~Ref() {
    if (!__builtin_constant_p(object_) || object_ != nullptr) drop(object_);
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const Ref& other) const { return object_ == other.object_; }
  T* leak() { return std::exchange(object_, nullptr); }

 private:
  [[gnu::noinline]] static void drop(T* object) {
    if (object != nullptr) object->unref();
  }
  T* object_ = nullptr;
};

template <typename T>
using Owned = std::unique_ptr<T>;

template <typename T, typename... Args>
Result<Ref<T>> make_ref(Args&&... args) {
  T* object = new (std::nothrow) T(std::forward<Args>(args)...);
  if (object == nullptr) return Error(ENOMEM);
  return Ref<T>::adopt(object);
}

template <typename T, typename... Args>
Result<Owned<T>> make_owned(Args&&... args) {
  T* object = new (std::nothrow) T(std::forward<Args>(args)...);
  if (object == nullptr) return Error(ENOMEM);
  return Owned<T>(object);
}

}  // namespace husk

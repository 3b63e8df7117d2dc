// Result<T>: a value or a Linux errno, and TRY, which passes an error on.
//
// The one way in which guest code reports "the caller's fault" and "exhausted".
// Numbers are Linux errno values (errno(3)) and stay positive until the system-call
// boundary. Broken invariants are not errors: see base/panic.h.
#pragma once

#include <errno.h>

#include <new>
#include <type_traits>
#include <utility>

namespace husk {

class [[nodiscard]] Error {
 public:
  explicit constexpr Error(int linux_errno) : code_(linux_errno) {}
  constexpr int code() const { return code_; }
  friend constexpr bool operator==(Error, Error) = default;

 private:
  int code_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(Error error) : code_(error.code()) {}  // NOLINT: implicit by design
  template <typename U = T>
  requires(std::is_constructible_v<T, U&&> && !std::is_same_v<std::remove_cvref_t<U>, Result> && !std::is_same_v<std::remove_cvref_t<U>, Error>)
      Result(U&& value)
      : code_(0) {  // NOLINT: implicit by design
    new (&storage_.value) T(std::forward<U>(value));
  }
  Result(Result&& other) noexcept : code_(other.code_) {
    if (ok()) new (&storage_.value) T(std::move(other.storage_.value));
  }
  Result(const Result&) = delete;
  Result& operator=(Result&& other) noexcept {
    if (this == &other) return *this;
    this->~Result();
    return *new (this) Result(std::move(other));
  }
  // Inlined, so that nothing is left of it where an error is passed on or the value has been moved.
  [[gnu::always_inline]] ~Result() {
    if (ok()) storage_.value.~T();
  }

  bool ok() const { return code_ == 0; }
  explicit operator bool() const { return ok(); }
  Error error() const { return Error(code_); }
  T& value() & { return storage_.value; }
  const T& value() const& { return storage_.value; }
  T&& value() && { return std::move(storage_.value); }
  T release() { return std::move(storage_.value); }
  T value_or(T other) && { return ok() ? std::move(storage_.value) : std::move(other); }
  T& operator*() { return storage_.value; }
  T* operator->() { return &storage_.value; }

 private:
  union Storage {
    Storage() {}
    ~Storage() {}
    T value;
  } storage_;
  int code_;
};

// Of a plain value: plain itself, so that it is returned in registers.
template <typename T>
requires std::is_trivially_copyable_v<T>
class [[nodiscard]] Result<T> {
 public:
  Result(Error error) : code_(error.code()) {}  // NOLINT: implicit by design
  template <typename U = T>
  requires(std::is_constructible_v<T, U&&> && !std::is_same_v<std::remove_cvref_t<U>, Result> && !std::is_same_v<std::remove_cvref_t<U>, Error>)
      Result(U&& value)
      : value_(std::forward<U>(value)), code_(0) {}  // NOLINT: implicit by design

  bool ok() const { return code_ == 0; }
  explicit operator bool() const { return ok(); }
  Error error() const { return Error(code_); }
  T& value() { return value_; }
  const T& value() const { return value_; }
  T release() { return value_; }
  T value_or(T other) const { return ok() ? value_ : other; }
  T& operator*() { return value_; }
  T* operator->() { return &value_; }

 private:
  union {
    T value_;  // only if ok
  };
  int code_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() : code_(0) {}
  Result(Error error) : code_(error.code()) {}  // NOLINT: implicit by design
  bool ok() const { return code_ == 0; }
  explicit operator bool() const { return ok(); }
  Error error() const { return Error(code_); }
  void value() const {}
  void release() const {}

 private:
  int code_;
};

}  // namespace husk

// TRY(expression): the value of a Result, or return its error from this function. May be nested: each use names its own variable.
#define TRY(...) HUSK_TRY_EXPANDED(__COUNTER__, __VA_ARGS__)
#define HUSK_TRY_EXPANDED(number, ...) HUSK_TRY_PASTED(number, __VA_ARGS__)
#define HUSK_TRY_PASTED(number, ...)                                     \
  ({                                                                     \
    auto husk_result_##number = (__VA_ARGS__);                           \
    if (!husk_result_##number.ok()) return husk_result_##number.error(); \
    husk_result_##number.release();                                      \
  })

// operator new and delete of the kernel. The throwing forms cannot throw: exhaustion there is a panic, so kernel code uses
// new (std::nothrow), make_ref and make_owned.
#include <algorithm>
#include <bit>
#include <new>

#include "base/panic.h"
#include "kernel/mem/frames.h"

namespace {

void* checked(void* pointer) {
  if (pointer == nullptr) HUSK_PANIC("out of memory in operator new");
  return pointer;
}

// The heap aligns a size that is a multiple of a power of two to it; above a frame everything is frame-aligned.
void* aligned(size_t size, std::align_val_t alignment) {
  size_t align = static_cast<size_t>(alignment);
  HUSK_ASSERT(align <= husk::kPageSize);
  size_t rounded = husk::align_up(std::max<size_t>(size, 1), align);
  return husk::mem::allocate(align <= 16 ? rounded : std::bit_ceil(rounded));
}

}  // namespace

namespace std {
const nothrow_t nothrow{};
}

void* operator new(size_t size) { return checked(husk::mem::allocate(size)); }
void* operator new[](size_t size) { return checked(husk::mem::allocate(size)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return husk::mem::allocate(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return husk::mem::allocate(size); }
void* operator new(size_t size, std::align_val_t a) { return checked(aligned(size, a)); }
void* operator new[](size_t size, std::align_val_t a) { return checked(aligned(size, a)); }
void* operator new(size_t size, std::align_val_t a, const std::nothrow_t&) noexcept { return aligned(size, a); }
void* operator new[](size_t size, std::align_val_t a, const std::nothrow_t&) noexcept { return aligned(size, a); }
void operator delete(void* p) noexcept { husk::mem::release(p); }
void operator delete[](void* p) noexcept { husk::mem::release(p); }
void operator delete(void* p, size_t) noexcept { husk::mem::release(p); }
void operator delete[](void* p, size_t) noexcept { husk::mem::release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { husk::mem::release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { husk::mem::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { husk::mem::release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { husk::mem::release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { husk::mem::release(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { husk::mem::release(p); }

// The mmap family: flags and descriptors decoded here, the work in mem::AddressSpace. mmap(2), mprotect(2), mremap(2),
// madvise(2), brk(2), mincore(2), msync(2), mlock(2), membarrier(2), pkeys(7).
#undef linux
#include <asm/mman.h>
#include <linux/membarrier.h>
#include <linux/mman.h>

#include <algorithm>

#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/file.h"

namespace husk::linux {

namespace {

using mem::MapRequest;

MapRequest::Placement placement_of(u64 address, u32 flags) {
  if ((flags & MAP_FIXED_NOREPLACE) != 0) return MapRequest::Placement::fixed_noreplace;
  if ((flags & MAP_FIXED) != 0) return MapRequest::Placement::fixed;
  return address != 0 ? MapRequest::Placement::hint : MapRequest::Placement::anywhere;
}

Result<void> take_object(MapRequest& request, int fd, u64 offset) {
  Ref<vfs::File> file = TRY(current_file(fd));
  bool may_write = file->writable();
  if (!file->readable()) return Error(EACCES);
  if (request.shared && (request.protection & PROT_WRITE) != 0 && !may_write) return Error(EACCES);
  if (request.shared && !may_write) request.protection_limit &= ~u32{PROT_WRITE};
  request.object = TRY(file->memory_object());
  request.offset = offset;
  return {};
}

// Rounded to pages; ENOMEM if the end wraps.
struct Span {
  u64 start, end;
};
Result<Span> page_span(u64 address, u64 length) {
  u64 end;
  if (!checked_add(address, length, &end) || end > kUserEnd) return Error(ENOMEM);
  return Span{align_down(address, kPageSize), align_up(end, kPageSize)};
}

Result<void> all_mapped(u64 start, u64 end) {
  mem::MappingInfo info;
  for (u64 at = start; at < end; at = info.end) {
    if (!current_space().find(at, &info) || info.start > at) return Error(ENOMEM);
  }
  return {};
}

// Memory is never paged out: locking makes it present and is done.
Result<i64> lock_range(u64 address, u64 length) {
  Span span = TRY(page_span(address, length));
  TRY(all_mapped(span.start, span.end));
  auto done = current_space().populate(span.start, span.end - span.start, mem::Access::read);
  if (!done.ok() && done.error().code() == ENOMEM) return Error(EAGAIN);
  return 0;
}

}  // namespace

HUSK_SYSCALL(mmap, u64 address, u64 length, u32 protection, u32 flags, int fd, u64 offset) {
  if (!is_aligned(offset, kPageSize)) return Error(EINVAL);
  MapRequest request{.address = address, .length = length, .protection = protection & 7};
  switch (flags & MAP_TYPE) {
    case MAP_PRIVATE: break;
    case MAP_SHARED: request.shared = true; break;
    case MAP_SHARED_VALIDATE:
      if ((flags & MAP_SYNC) != 0) return Error(EOPNOTSUPP);
      request.shared = true;
      break;
    default: return Error(EINVAL);
  }
  if ((flags & MAP_ANONYMOUS) == 0) TRY(take_object(request, fd, offset));
  if ((flags & MAP_HUGETLB) != 0) return Error((flags & MAP_ANONYMOUS) != 0 ? ENOMEM : EINVAL);  // no pool of them
  request.placement = placement_of(address, flags);
  request.grows_down = (flags & MAP_GROWSDOWN) != 0 && !request.object;
  request.populate = (flags & MAP_LOCKED) != 0 || (flags & (MAP_POPULATE | MAP_NONBLOCK)) == MAP_POPULATE;
  request.below_2g = (flags & MAP_32BIT) != 0;
  request.small_pages = (flags & MAP_STACK) != 0;
  return static_cast<i64>(TRY(current_space().map(request)));
}

HUSK_SYSCALL(munmap, u64 address, u64 length) {
  TRY(current_space().unmap(address, length));
  return 0;
}

HUSK_SYSCALL(mprotect, u64 address, u64 length, u32 protection) {
  constexpr u32 kGrows = PROT_GROWSDOWN | PROT_GROWSUP;
  if ((protection & ~(u32{PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM} | kGrows)) != 0) return Error(EINVAL);
  if ((protection & kGrows) == kGrows) return Error(EINVAL);
  TRY(current_space().protect(address, length, protection & 7));
  return 0;
}

HUSK_SYSCALL(pkey_mprotect, u64 address, u64 length, u32 protection, int key) {
  if (key != -1) return Error(EINVAL);
  return mprotect_body(address, length, protection);
}
HUSK_SYSCALL(pkey_alloc, u64, u64) { return Error(ENOSPC); }
HUSK_SYSCALL(pkey_free, int) { return Error(EINVAL); }

HUSK_SYSCALL(mremap, u64 address, u64 old_length, u64 new_length, u32 flags, u64 new_address) {
  return static_cast<i64>(TRY(current_space().remap(address, old_length, new_length, flags, new_address)));
}

HUSK_SYSCALL(madvise, u64 address, u64 length, int advice) {
  TRY(current_space().advise(address, length, advice));
  return 0;
}

HUSK_SYSCALL(brk, u64 end) { return static_cast<i64>(current_space().set_heap_end(end)); }

HUSK_SYSCALL(mincore, u64 address, u64 length, u64 vector) {
  if (!is_aligned(address, kPageSize)) return Error(EINVAL);
  Span span = TRY(page_span(address, length));
  u8 bits[256];
  for (u64 at = span.start; at < span.end;) {
    u64 pages = std::min<u64>((span.end - at) / kPageSize, sizeof(bits));
    TRY(current_space().resident(at, pages * kPageSize, bits));
    TRY(mem::copy_to_user(vector, bits, pages));
    at += pages * kPageSize;
    vector += pages;
  }
  return 0;
}

// Shared mappings show the file's own pages: nothing is to be written back.
HUSK_SYSCALL(msync, u64 address, u64 length, u32 flags) {
  if ((flags & ~u32{MS_ASYNC | MS_INVALIDATE | MS_SYNC}) != 0 || !is_aligned(address, kPageSize)) return Error(EINVAL);
  if ((flags & (MS_ASYNC | MS_SYNC)) == (MS_ASYNC | MS_SYNC)) return Error(EINVAL);
  Span span = TRY(page_span(address, length));
  TRY(all_mapped(span.start, span.end));
  return 0;
}

HUSK_SYSCALL(mlock, u64 address, u64 length) { return lock_range(address, length); }
HUSK_SYSCALL(mlock2, u64 address, u64 length, u32 flags) {
  if ((flags & ~u32{MLOCK_ONFAULT}) != 0) return Error(EINVAL);
  if (flags == 0) return lock_range(address, length);
  Span span = TRY(page_span(address, length));
  TRY(all_mapped(span.start, span.end));
  return 0;
}
HUSK_SYSCALL(munlock, u64 address, u64 length) {
  Span span = TRY(page_span(address, length));
  TRY(all_mapped(span.start, span.end));
  return 0;
}
HUSK_SYSCALL(mlockall, u32 flags) {
  constexpr u32 kAll = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
  if (flags == 0 || (flags & ~kAll) != 0 || flags == MCL_ONFAULT) return Error(EINVAL);
  return 0;
}
HUSK_SYSCALL(munlockall) { return 0; }

// Threads of one vCPU: a switch between them is a barrier, so that registration is all that there is to it.
HUSK_SYSCALL(membarrier, int command, u32 flags, int) {
  struct Pair {
    int command, registration;
  };
  constexpr Pair kExpedited[] = {{MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED},
                                 {MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE},
                                 {MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ}};
  constexpr int kPlain = MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
  static constinit int registered = 0;  // of the one process
  bool for_cpu = command == MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ && flags == MEMBARRIER_CMD_FLAG_CPU;
  if (flags != 0 && !for_cpu) return Error(EINVAL);
  int supported = kPlain;
  for (const Pair& pair : kExpedited) {
    supported |= pair.command | pair.registration;
    if (command == pair.registration) registered |= pair.command;
    if (command == pair.command && (registered & pair.command) == 0) return Error(EPERM);
  }
  if (command == MEMBARRIER_CMD_QUERY) return supported;
  if ((command & (command - 1)) != 0 || (command & supported) == 0) return Error(EINVAL);
  return 0;
}

}  // namespace husk::linux

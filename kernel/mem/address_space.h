// Address spaces: a tree of mappings over memory objects, filled on demand.
//
// Pages of private mappings that were written belong to the address space; everything else belongs to the object.
// fork (copy on write) will be an operation on this object; nothing here assumes that there is one address space.
// Called with the kernel's exclusion (one vCPU: kernel code is never pre-empted). mmap(2), mprotect(2), mremap(2), madvise(2).
#pragma once

#include "base/list.h"
#include "base/list.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"

namespace husk::mem {

enum class Access : u8 { read, write, execute };

// A run of physically contiguous frames of an object.
struct PageRun {
  PhysAddr start;
  u64 pages;
};

// What a mapping can show: image files, tmpfs files and memfds, device windows. Anonymous memory needs none.
class MemoryObject : public RefCounted<MemoryObject> {
 public:
  virtual ~MemoryObject() = default;
  // Frames from page `index` on: at least one page, at most `wanted`. Access::write allocates holes (shared mappings of
  // tmpfs). ENXIO beyond the end (SIGBUS), ENOMEM. Frames stay valid while the object lives, unless invalidate is called.
  virtual Result<PageRun> pages(u64 index, u64 wanted, Access access) = 0;
  // Frames are in the image and never change: they may be mapped executable.
  virtual bool immutable() const { return false; }
  virtual const char* name() const { return ""; }  // for /proc/self/maps
  virtual u64 device() const { return 0; }
  virtual u64 inode() const { return 0; }

  // Whoever maps pages hears of pages that go away (truncate, hole punch) before their frames are freed.
  struct ObserverTag;
  class Observer : public ListNode<ObserverTag> {
   public:
    virtual void pages_removed(u64 first, u64 count) = 0;  // must not add or remove observers

   protected:
    ~Observer() = default;
  };
  void add_observer(Observer* observer) { observers_.push_back(observer); }
  static void remove_observer(Observer* observer) { observer->unlink(); }
  bool observed() const { return !observers_.empty(); }

 protected:
  void invalidate(u64 first, u64 count) {
    for (Observer& observer : observers_) observer.pages_removed(first, count);
  }

 private:
  List<Observer, ObserverTag> observers_;
};

struct MapRequest {
  enum class Placement : u8 { anywhere, hint, fixed, fixed_noreplace };
  u64 address = 0;
  u64 length = 0;
  u32 protection = 0;        // PROT_READ | PROT_WRITE | PROT_EXEC
  u32 protection_limit = 7;  // what mprotect(2) may give later: no writing to a shared file that is open for reading only
  Placement placement = Placement::anywhere;
  bool shared = false;
  bool grows_down = false;  // a main thread's stack
  bool populate = false;
  bool below_2g = false;               // MAP_32BIT
  bool small_pages = false;            // MAP_STACK: no 2 MiB pages unless advised
  Ref<MemoryObject> object = nullptr;  // null: anonymous
  u64 offset = 0;                      // bytes into the object
  const char* label = nullptr;         // "[stack]", "[heap]": static text for maps
};

struct MappingInfo {
  u64 start, end, offset;
  u32 protection;
  bool shared;
  const char* name;
  u64 device, inode;
  u64 resident_bytes;
};

class AddressSpace : public RefCounted<AddressSpace> {
 public:
  // The mmap area is filled from `mmap_top` downwards, as on Linux. jit: the policy of the image. It does not destroy
  // `nub_space`, but leaves nothing mapped in it.
  static Result<Ref<AddressSpace>> create(u32 nub_space, u64 mmap_top, bool jit_allowed);
  ~AddressSpace();

  Result<u64> map(const MapRequest& request);
  Result<void> unmap(u64 address, u64 length);
  Result<void> protect(u64 address, u64 length, u32 protection);
  Result<u64> remap(u64 address, u64 old_length, u64 new_length, u32 mremap_flags, u64 new_address);
  Result<void> advise(u64 address, u64 length, int advice);
  // brk(2): the heap mapping [start, end) with start fixed at creation of the process image.
  void set_heap_start(u64 start);
  u64 set_heap_end(u64 end);  // gives the end that is in effect
  u64 heap_start() const;
  void set_stack_limit(u64 bytes);  // how far a grows_down mapping may grow (RLIMIT_STACK); 8 MiB if never called

  // Makes one access possible. EFAULT no mapping (SEGV_MAPERR), EACCES protection (SEGV_ACCERR), ENXIO beyond the end of the
  // object (SIGBUS), ENOMEM. Fault-around and 2 MiB pages happen in here. `stack_pointer` lets stacks grow.
  Result<void> fault(u64 address, Access access, u64 stack_pointer);
  // Makes the pages of a range present (kernel copies that must not fault, MAP_POPULATE).
  Result<void> populate(u64 address, u64 length, Access access);
  // The frame behind an address, if it is present (futex keys of shared memory, device I/O).
  Result<PhysAddr> translate(u64 address) const;

  bool find(u64 address, MappingInfo* info) const;  // the mapping that holds address, else the next above it
  template <typename Visitor>
  void for_each(Visitor&& visit) const {
    MappingInfo info;
    for (u64 at = 0; find(at, &info); at = info.end) visit(info);
  }
  // mincore(2): one byte a page.
  Result<void> resident(u64 address, u64 length, u8* bits) const;
  u64 mapped_bytes() const;
  u64 resident_bytes() const;
  u64 peak_resident_bytes() const;
  u64 private_bytes() const;  // resident and owned by this space
  u64 fault_count() const;
  u32 nub_space() const;

  struct State;  // address_space_state.h

 private:
  AddressSpace();
  Owned<State> state_;
};

}  // namespace husk::mem

// Builds the first state of a machine: page tables, descriptor tables, the nub's memory, the relocated kernel, boot info, registers.
//
// Header-only and freestanding, because two programs do the same work: the husk monitor natively before the first vCPU runs,
// and the nub itself when another loader entered it by PVH (nub/pvh.cc). The memory is reached through an accessor
// (guest-physical → pointer), so nothing here depends on where it runs. One thread; nothing else touches the guest's memory meanwhile.
// The image header has been checked by the caller. Order in RAM from `area_start`, so that few host pages are touched:
//   nub region: per-vCPU pages, nub data, usage counts, page-table pool | vCPU shared page, stacks, boot info, config, monitor page |
//   relro copies | data copies | free.
#pragma once

#include <string.h>

#include "abi/boot_config.h"
#include "abi/boot_info.h"
#include "abi/image_format.h"
#include "abi/monitor_device.h"
#include "abi/nub_abi.h"

namespace husk::abi {

// Page-table entry bits (Intel SDM 3A §4.5); the software bits tell the nub what it maps without a look-up.
constexpr u64 kPtePresent = 1, kPteWrite = 2, kPteUser = 4, kPteUncached = 0x18, kPteAccessed = 0x20, kPteDirty = 0x40, kPteHuge = 0x80;
constexpr u64 kPteSealed = 1 << 9;  // never changes again
constexpr u64 kPteImage = 1 << 10;  // frame of the image: never writable
constexpr u64 kPteDevice = 1 << 11;
constexpr u64 kPteNoExecute = u64{1} << 63;
constexpr u64 kPteFrame = 0x000ffffffffff000;
constexpr u64 kPteTable = kPtePresent | kPteWrite | kPteUser | kPteAccessed;
constexpr u64 kPteLeaf = kPtePresent | kPteAccessed | kPteDirty;

// The nub's fixed virtual layout, all in the last 2 GiB, supervisor only.
constexpr u64 kNubVcpuBase = kNubBase + 0x20000000;    // per-vCPU blocks
constexpr u64 kNubRegionBase = kNubBase + 0x40000000;  // the whole nub region, for page tables
constexpr u64 kNubRegionMax = kGiB - kHugePageSize;
enum VcpuBlock : u64 {  // offsets in a per-vCPU block; the code reaches the pages behind it relative to rip
  kBlockStubs = 0,      // alias of the nub's stub page
  kBlockData = 0x1000,  // NubVcpu, GDT, TSS, IDT
  kBlockStack = 0x2000,
  kBlockIst = 0x3000,     // four stacks of 1 KiB: NMI, double fault, machine check, interrupts; exceptions push into VcpuShared
  kBlockShared = 0x4000,  // alias of VcpuShared
  kBlockApic = 0x5000,    // local APIC (pc)
  kBlockApply = 0x6000,   // ApplyList
  kBlockSize = 0x7000,
};

struct NubVcpu {         // the beginning of the data page; offsets are known to nub/stubs.S
  u64 upcall_frame[5];   // 0x00 rip cs rflags rsp ss: what IRETQ takes
  u64 syscall_frame[5];  // 0x28
  u64 call_site;         // 0x50
  u64 lstar;             // 0x58
  u64 scratch;           // 0x60
  u64 nmi_count;         // 0x68
  u64 call_frame[5];     // 0x70
};
constexpr u64 kDataGdt = 0x100, kDataTss = 0x180, kDataIdt = 0x400, kDataEnd = kDataIdt + 16 * HUSK_VECTOR_COUNT;
constexpr u64 kTssSize = 104, kIoBitmapPorts = 0xd00;  // 0x3f8..0x3ff and 0xcf8..0xcff on pc
static_assert(kDataTss + kTssSize + kIoBitmapPorts / 8 + 1 <= kDataIdt && kDataEnd <= kPageSize);

// Page-table entries that the monitor worked out for the nub to write (monitor_device.h, kMonitorTables). All addresses are the nub's.
struct ApplyRun {  // offsets are known to nub/stubs.S
  u64 count;       // entries; 0 ends the list
  u64 to;          // in a page table
  u64 from;        // in ApplyList::entries
  u64 usage;       // the table's u16 in NubState::usage
  u64 removed;     // entries that become empty, never all of them
};
constexpr u64 kApplyRunsMax = 15, kApplyEntriesMax = (kPageSize - (kApplyRunsMax + 1) * sizeof(ApplyRun)) / 8;
struct ApplyList {
  ApplyRun runs[kApplyRunsMax + 1];
  u64 entries[kApplyEntriesMax];
};
static_assert(sizeof(ApplyRun) == 40 && sizeof(ApplyList) <= kPageSize);

constexpr u32 kSealedRangesMax = 32;
constexpr u16 kPoolRoot = 0x8000;  // in NubState::usage: this page is the root of an address space

// The nub's only mutable data beside page tables; lives in its data part, at ImageHeader::nub_state.
struct NubState {
  u64 magic;
  MachineKind machine;
  u32 image_flags;
  u64 region_start, region_end;  // physical
  u64 pool_start, pool_pages;    // physical, count
  u64 pool_next;                 // index of the first page never used
  u64 pool_free;                 // index + 1 of the first freed page
  u16* usage;                    // per pool page: entries in use, or kPoolRoot
  u64 boot_root, current_root;   // physical
  u64 image_start, image_end;    // physical
  u64 direct_base, direct_size;
  u64 ram_is_zero;
  u64 tsc_per_apic_tick_shift24;  // pc: APIC timer ticks per TSC tick, 24 fraction bits
  u64 apply_list;                 // physical: of the only vCPU
  u32 range_count, window_count, sealed_count, pad;
  MemoryRange ram[kFreeRangesMax];
  MemoryRange windows[kWindowsMax];
  MemoryRange sealed[kSealedRangesMax];  // physical
};

struct CpuFeatures {
  u64 xcr0;  // states to switch on: x87, SSE, AVX, AVX-512; 0 = no XSAVE
  bool smep, smap, umip, fsgsbase;
};

struct CpuMsr {
  u32 index;
  u64 value;
};

// What the CPU holds when the first instruction of the kernel runs.
struct CpuState {
  u64 rip, rsp, rdi, rflags;
  u64 cr0, cr3, cr4, efer, xcr0, gs_base;
  u64 gdt_base, idt_base, tss_base;
  u16 gdt_limit, idt_limit, tss_limit;
  CpuMsr msrs[6];
  u32 msr_count;
};

struct MachineInput {
  const ImageHeader* header;
  u64 image_physical;
  MachineKind machine;
  MemoryRange ram[kFreeRangesMax];  // sorted, page-aligned, without the image
  u32 ram_count;
  u64 area_start;  // physical, 2 MiB-aligned, in ram[]: everything that is built goes from here
  u64 ram_size;    // for BootInfo
  u64 start_tsc;
  const u8* config;
  u64 config_size;
  const u8* entropy;  // 32 bytes
  const DeviceWindow* windows;
  u32 window_count;
  u32 ram_is_zero;
  CpuFeatures features;
  u64 tsc_per_apic_tick_shift24;
  u64 apic_physical;   // pc, else 0
  u32 monitor_tables;  // for BootInfo
  // The first 2 MiB from image_physical are backed whatever the size of the file, by memory that takes a large page: the kernel's text and
  // read-only data are mapped by one, where each page's first use is dear (shadow page tables).
  u32 huge_text;
};

struct MachineOutput {
  CpuState cpu;
  u64 monitor_page_physical;
  u64 boot_info_physical;
  u64 nub_state_physical, vcpu_shared_physical;
  MemoryRange nub_region, relro;  // what ring 3 must not change, by devices neither
};

// `At`: u8* operator()(u64 physical), valid up to the end of the RAM range or image that the address lies in.
template <typename At>
class MachineBuilder {
 public:
  MachineBuilder(const MachineInput& input, At at) : in_(input), header_(*input.header), at_(at) {}

  // nullptr, or why the machine cannot be built.
  const char* build(MachineOutput* out) {
    if (const char* error = plan()) return error;
    map_nub();
    map_kernel();
    map_image();
    map_area();
    map_direct();
    fill_vcpu();
    fill_state();
    fill_boot_info();
    fill_cpu(&out->cpu);
    out->monitor_page_physical = in_.machine == MachineKind::monitor ? monitor_page_ : 0;
    out->boot_info_physical = boot_info_;
    out->nub_state_physical = nub_state_;
    out->vcpu_shared_physical = shared_;
    out->nub_region = {in_.area_start, region_end_ - in_.area_start};
    out->relro = {relro_start_, relro_end_ - relro_start_};
    return full_ ? "too little memory for the page tables" : nullptr;
  }

 private:
  u64 random() {  // splitmix64 over the host's entropy: spreads it, adds none
    u64 word;
    memcpy(&word, in_.entropy + 8 * (random_count_ % 4), 8);
    u64 z = word + (++random_count_) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // A free upper-half slot of 512 GiB: not the last, the nub's, and not the first, where software KVMs lose pages (measured: with anything of
  // ours there every machine ends in a page fault that its tables do not explain; Linux leaves it to hypervisors, x86/x86_64/mm.rst).
  u64 random_slot() {
    u64 slot = 1 + random() % 254;
    while (slot_used_[slot]) slot = slot % 254 + 1;
    slot_used_[slot] = true;
    return 0xffff800000000000 + slot * 512 * kGiB;
  }
  u64 random_in_slot(u64 alignment, u64 limit) { return random_slot() + align_down(random() % limit, alignment); }

  // Takes physical pages one after the other from area_start.
  u64 take(u64 bytes) {
    u64 start = next_;
    next_ += align_up(bytes, kPageSize);
    return start;
  }

  const char* plan() {
    u64 total = 0;
    const MemoryRange* home = nullptr;
    for (u32 i = 0; i < in_.ram_count; ++i) {
      total += in_.ram[i].size;
      direct_size_ = in_.ram[i].start + in_.ram[i].size;
      if (in_.area_start >= in_.ram[i].start && in_.area_start - in_.ram[i].start < in_.ram[i].size) home = &in_.ram[i];
    }
    if (home == nullptr || direct_size_ > 256 * kGiB) return "RAM layout not supported";
    u64 fixed = in_.config_size + 256 * kKiB;
    for (u32 i = 0; i < header_.kernel_part_count; ++i) fixed += header_.kernel_parts[i].memory_size;
    if (fixed > home->start + home->size - in_.area_start) return "too little memory for this image";
    // A leaf table per 2 MiB of program memory, a third more for sparse use; 17 for the upper half, 12 for a small program, the rest to grow.
    pool_pages_ = total / kHugePageSize * 4 / 3 + 40;
    next_ = in_.area_start;
    vcpu_pages_ = take(4 * kPageSize);
    for (u32 i = 0; i < header_.nub_part_count; ++i) {
      if (header_.nub_parts[i].flags & kPartWrite) nub_data_[i] = take(header_.nub_parts[i].memory_size);
    }
    usage_ = take(pool_pages_ * sizeof(u16));
    pool_ = take(pool_pages_ * kPageSize);
    region_end_ = next_;
    if (region_end_ - in_.area_start > kNubRegionMax) return "too much memory for the nub's tables";
    shared_ = take(kPageSize);
    upcall_stack_ = take(kUpcallStackSize);
    boot_stack_ = take(kBootStackSize);
    boot_info_ = take(kPageSize);
    monitor_page_ = take(kPageSize);
    config_ = take(in_.config_size);
    relro_start_ = next_;
    for (u32 i = 0; i < header_.kernel_part_count; ++i) {
      if (header_.kernel_parts[i].relro) kernel_copy_[i] = take(header_.kernel_parts[i].memory_size);
    }
    relro_end_ = next_;
    for (u32 i = 0; i < header_.kernel_part_count; ++i) {
      const ImagePart& part = header_.kernel_parts[i];
      if (!part.relro && (part.flags & kPartWrite)) kernel_copy_[i] = take(part.memory_size);
    }
    if (next_ > home->start + home->size) return "too little memory for this image";
    kernel_base_ = random_in_slot(kPageSize, 512 * kGiB - align_up(header_.kernel_size, kPageSize) - kHugePageSize);
    if (text_fits_huge_page()) kernel_base_ = align_up(kernel_base_, kHugePageSize) + header_.kernel_parts[0].file_offset;
    direct_base_ = random_in_slot(kHugePageSize, 512 * kGiB - align_up(direct_size_, kHugePageSize));
    image_base_ = random_in_slot(kHugePageSize, 512 * kGiB - align_up(header_.file_size, kHugePageSize));
    u64 area_slot = random_slot();
    area_ = area_slot + align_down(random() % (256 * kGiB), kHugePageSize);
    area_end_ = area_slot + 512 * kGiB;
    root_ = take_table();
    return nullptr;
  }

  u64* table(u64 physical) { return reinterpret_cast<u64*>(at_(physical)); }
  u16* usage() { return reinterpret_cast<u16*>(at_(usage_)); }
  u64 take_table() {
    if (pool_used_ == pool_pages_) {
      full_ = true;
      --pool_used_;  // reported at the end; nothing outside the pool is touched
    }
    u64 page = pool_ + pool_used_++ * kPageSize;
    if (!in_.ram_is_zero) memset(at_(page), 0, kPageSize);
    return page;
  }
  void count(u64 table_page) {
    u16& used = usage()[(table_page - pool_) / kPageSize];
    used = static_cast<u16>(used + 1);
  }
  // The table that holds the entry for `va` at `level` (1: 4 KiB pages, 2: 2 MiB pages).
  u64 leaf_table(u64 va, int level) {
    u64 page = root_;
    for (int at = 4; at > level; --at) {
      u64* slot = table(page) + ((va >> (12 + 9 * (at - 1))) & 511);
      if (*slot == 0) {
        count(page);
        *slot = take_table() | kPteTable;
      }
      page = *slot & kPteFrame;
    }
    return page;
  }
  // Maps [physical, +size) at va, with 2 MiB pages where they fit.
  void map(u64 va, u64 physical, u64 size, u64 flags) {
    u64 end = va + align_up(size, kPageSize);
    while (va < end) {
      bool huge = is_aligned(va | physical, kHugePageSize) && end - va >= kHugePageSize;
      u64 step = huge ? kHugePageSize : kPageSize;
      u64 page = leaf_table(va, huge ? 2 : 1);
      u64* slot = table(page) + ((va / step) & 511);
      do {
        if (*slot == 0) count(page);
        *slot++ = physical | flags | kPteLeaf | (huge ? kPteHuge : 0);
        va += step;
        physical += step;
      } while (end - va >= step && !is_aligned(va, huge ? kGiB : kHugePageSize));
    }
  }

  static constexpr u64 kUserRead = kPteUser | kPteNoExecute;
  static constexpr u64 kUserWrite = kPteUser | kPteWrite | kPteNoExecute;
  static constexpr u64 kNubWrite = kPteWrite | kPteNoExecute | kPteSealed;

  void map_nub() {
    u64 stubs = 0;
    for (u32 i = 0; i < header_.nub_part_count; ++i) {
      const ImagePart& part = header_.nub_parts[i];
      u64 va = kNubBase + part.virtual_offset;
      if (part.flags & kPartWrite) {
        copy_part(part, nub_data_[i]);
        map(va, nub_data_[i], part.memory_size, kNubWrite);
      } else {
        u64 frames = in_.image_physical + part.file_offset;
        map(va, frames, part.memory_size, kPteSealed | kPteImage | (part.flags & kPartExecute ? 0 : kPteNoExecute));
        if (header_.nub_vector_stubs - part.virtual_offset < part.memory_size) {
          stubs = frames + (header_.nub_vector_stubs - part.virtual_offset);
        }
      }
    }
    map(kNubVcpuBase + kBlockStubs, stubs, kPageSize, kPteSealed | kPteImage);
    map(kNubVcpuBase + kBlockData, vcpu_pages_, 3 * kPageSize, kNubWrite);
    map(kNubVcpuBase + kBlockShared, shared_, kPageSize, kNubWrite);
    map(kNubVcpuBase + kBlockApply, vcpu_pages_ + 3 * kPageSize, kPageSize, kNubWrite);
    if (in_.apic_physical != 0) map(kNubVcpuBase + kBlockApic, in_.apic_physical, kPageSize, kNubWrite | kPteUncached);
    map(kNubRegionBase, in_.area_start, region_end_ - in_.area_start, kNubWrite);
  }

  void copy_part(const ImagePart& part, u64 to) {
    u8* bytes = at_(to);
    memcpy(bytes, at_(in_.image_physical + part.file_offset), part.file_size);
    if (!in_.ram_is_zero) memset(bytes + part.file_size, 0, part.memory_size - part.file_size);
  }

  // All parts that are used in place lie in the image's first 2 MiB, at one distance from their addresses, and no others on that page.
  bool text_fits_huge_page() const {
    u64 shift = header_.kernel_parts[0].file_offset - header_.kernel_parts[0].virtual_offset;
    if (!in_.huge_text || header_.kernel_parts[0].virtual_offset != 0) return false;
    for (u32 i = 0; i < header_.kernel_part_count; ++i) {
      const ImagePart& part = header_.kernel_parts[i];
      bool in_place = !part.relro && !(part.flags & kPartWrite);
      bool on_page = part.file_offset - part.virtual_offset == shift && part.file_offset + part.memory_size <= kHugePageSize;
      if (in_place ? !on_page : part.virtual_offset < kHugePageSize) return false;
    }
    return true;
  }
  void map_kernel() {
    bool huge = text_fits_huge_page();
    if (huge) map(align_down(kernel_base_, kHugePageSize), in_.image_physical, kHugePageSize, kPteUser | kPteSealed | kPteImage);
    for (u32 i = 0; i < header_.kernel_part_count; ++i) {
      const ImagePart& part = header_.kernel_parts[i];
      u64 va = kernel_base_ + part.virtual_offset;
      if (part.relro || (part.flags & kPartWrite)) {
        copy_part(part, kernel_copy_[i]);
        relocate(part, at_(kernel_copy_[i]));
        map(va, kernel_copy_[i], part.memory_size, part.relro ? kUserRead | kPteSealed : kUserWrite);
      } else if (!huge) {
        u64 execute = part.flags & kPartExecute ? 0 : kPteNoExecute;
        map(va, in_.image_physical + part.file_offset, part.memory_size, kPteUser | execute | kPteSealed | kPteImage);
      }
    }
  }
  // image_format.h, relocations_offset. The addends are in place.
  void relocate(const ImagePart& part, u8* bytes) {
    const u64* bitmap = reinterpret_cast<const u64*>(at_(in_.image_physical + header_.relocations_offset));
    for (u64 at = 0; at + 8 <= part.memory_size; at += 8) {
      u64 n = (part.virtual_offset + at - header_.relocated_start) / 8;
      if (n / 64 >= header_.relocation_words || (bitmap[n / 64] >> (n % 64) & 1) == 0) continue;
      u64 value;
      memcpy(&value, bytes + at, 8);
      value += kernel_base_;
      memcpy(bytes + at, &value, 8);
    }
  }

  void map_image() { map(image_base_, in_.image_physical, header_.file_size, kUserRead | kPteImage | kPteSealed); }

  u64 place(u64 physical, u64 size, u64 flags, u64 guard) {
    u64 va = area_;
    map(va, physical, size, flags);
    area_ += align_up(size, kPageSize) + guard;
    return va;
  }
  void map_area() {
    BootInfo& info = boot_info();
    info.vcpu_shared = place(shared_, kPageSize, kUserWrite, kPageSize);
    info.upcall_stack_top = place(upcall_stack_, kUpcallStackSize, kUserWrite, kPageSize) + kUpcallStackSize;
    info.boot_stack_top = place(boot_stack_, kBootStackSize, kUserWrite, kPageSize) + kBootStackSize;
    boot_info_va_ = place(boot_info_, kPageSize, kUserRead, 0);
    if (in_.machine == MachineKind::monitor) info.monitor_page = place(monitor_page_, kPageSize, kUserWrite, 0);
    if (in_.config_size != 0) {
      memcpy(at_(config_), in_.config, in_.config_size);
      info.config_base = place(config_, in_.config_size, kUserRead, kPageSize);
    }
    info.window_count = in_.window_count;
    for (u32 i = 0; i < in_.window_count; ++i) {
      DeviceWindow window = in_.windows[i];
      u64 offset = window.physical_address & (kPageSize - 1);
      u64 first = window.physical_address - offset;
      // Small windows that share a page with the one before share its mapping.
      if (i > 0 && first == align_down(info.windows[i - 1].physical_address, kPageSize)) {
        window.virtual_address = align_down(info.windows[i - 1].virtual_address, kPageSize) + offset;
      } else {
        if (window.size >= kHugePageSize) area_ = align_up(area_, kHugePageSize);
        window.virtual_address = place(first, offset + window.size, kUserWrite | kPteUncached | kPteDevice, 0) + offset;
      }
      info.windows[i] = window;
    }
    info.kernel_area_start = align_up(area_, kHugePageSize);
    info.kernel_area_end = area_end_;
  }

  void map_direct() {
    for (u32 i = 0; i < in_.ram_count; ++i) {
      u64 start = in_.ram[i].start, end = start + in_.ram[i].size;
      map_direct_range(start, end < in_.area_start ? end : in_.area_start);
      map_direct_range(start > region_end_ ? start : region_end_, end < relro_start_ ? end : relro_start_);
      map_direct_range(start > relro_end_ ? start : relro_end_, end);
    }
  }
  void map_direct_range(u64 start, u64 end) {
    if (start < end) map(direct_base_ + start, start, end - start, kUserWrite);
  }

  void fill_vcpu() {
    u8* page = at_(vcpu_pages_);
    if (!in_.ram_is_zero) memset(page, 0, 4 * kPageSize);
    NubVcpu& vcpu = *reinterpret_cast<NubVcpu*>(page);
    u64 flags = 0x202;
    vcpu = {{kernel_base_ + header_.kernel_upcall_entry, HUSK_USER_CS, flags, boot_info().upcall_stack_top, HUSK_USER_SS},
            {kernel_base_ + header_.kernel_trapped_syscall_entry, HUSK_USER_CS, flags, 0, HUSK_USER_SS},
            kernel_base_ + header_.kernel_nub_call_site,
            lstar(),
            0,
            0,
            {kernel_base_ + header_.kernel_nub_call_site, HUSK_USER_CS, flags, 0, HUSK_USER_SS}};
    u64* gdt = reinterpret_cast<u64*>(page + kDataGdt);
    u64 tss = kNubVcpuBase + kBlockData + kDataTss;
    u64 tss_limit = this->tss_limit();
    gdt[HUSK_NUB_CS / 8] = 0x00af9b000000ffff;
    gdt[HUSK_NUB_SS / 8] = 0x00cf93000000ffff;
    gdt[HUSK_USER_SS / 8] = 0x00cff3000000ffff;
    gdt[HUSK_USER_CS / 8] = 0x00affb000000ffff;
    gdt[HUSK_TSS / 8] = tss_limit | (tss & 0xffffff) << 16 | u64{0x8b} << 40 | (tss >> 24 & 0xff) << 56;
    gdt[HUSK_TSS / 8 + 1] = tss >> 32;
    fill_tss(page + kDataTss);
    u64* idt = reinterpret_cast<u64*>(page + kDataIdt);
    for (u64 vector = 0; vector < HUSK_VECTOR_COUNT; ++vector) {
      u64 stub = kNubVcpuBase + kBlockStubs + vector * kNubVectorStubSize;
      u64 ist = vector == 2 ? 1 : vector == 8 ? 2 : vector == 18 ? 3 : vector >= 32 ? 4 : 0;
      u64 user = vector == 3 || vector == 4 ? 0x60 : 0;  // int3 and into may come from ring 3
      idt[2 * vector] = (stub & 0xffff) | HUSK_NUB_CS << 16 | ist << 32 | (0x8e | user) << 40 | (stub >> 16 & 0xffff) << 48;
      idt[2 * vector + 1] = stub >> 32;
    }
  }
  u64 lstar() const { return kNubVcpuBase + kBlockStubs + (header_.nub_syscall_stub - header_.nub_vector_stubs); }
  u64 tss_limit() const { return in_.machine == MachineKind::pc ? kTssSize + kIoBitmapPorts / 8 : kTssSize - 1; }
  void fill_tss(u8* tss) {
    u64 stack = kNubVcpuBase + kBlockShared + HUSK_VCPU_UPCALL_FRAME_END;
    memcpy(tss + 4, &stack, 8);
    for (u64 i = 0; i < 4; ++i) {
      u64 ist = kNubVcpuBase + kBlockIst + (i + 1) * kKiB;
      memcpy(tss + 36 + 8 * i, &ist, 8);
    }
    u16 bitmap = kTssSize;
    memcpy(tss + 102, &bitmap, 2);
    if (in_.machine != MachineKind::pc) return;
    memset(tss + kTssSize, 0xff, kIoBitmapPorts / 8 + 1);
    tss[kTssSize + 0x3f8 / 8] = 0;  // COM1
    tss[kTssSize + 0xcf8 / 8] = 0;  // PCI configuration
  }

  BootInfo& boot_info() { return *reinterpret_cast<BootInfo*>(at_(boot_info_)); }

  // The host's configuration may allow more than the image asked for (husk run --jit).
  u32 image_flags() const {
    u32 flags = header_.flags;
    ConfigReader reader({in_.config, in_.config_size});
    while (auto record = reader.next()) {
      if (record->tag == ConfigTag::jit) flags |= kImageJit;
    }
    return flags;
  }

  void fill_state() {
    NubState* state = nullptr;
    for (u32 i = 0; i < header_.nub_part_count; ++i) {
      if (nub_data_[i] != 0 && header_.nub_state - header_.nub_parts[i].virtual_offset < header_.nub_parts[i].memory_size) {
        nub_state_ = nub_data_[i] + (header_.nub_state - header_.nub_parts[i].virtual_offset);
        state = reinterpret_cast<NubState*>(at_(nub_state_));
      }
    }
    state->magic = kBootInfoMagic;
    state->machine = in_.machine;
    state->image_flags = image_flags();
    state->region_start = in_.area_start;
    state->region_end = region_end_;
    state->pool_start = pool_;
    state->pool_pages = pool_pages_;
    state->pool_next = pool_used_;
    state->usage = reinterpret_cast<u16*>(kNubRegionBase + (usage_ - in_.area_start));
    state->boot_root = state->current_root = root_;
    usage()[0] = kPoolRoot;
    state->image_start = in_.image_physical;
    state->image_end = in_.image_physical + align_up(header_.file_size, kPageSize);
    state->direct_base = direct_base_;
    state->direct_size = direct_size_;
    state->ram_is_zero = in_.ram_is_zero;
    state->tsc_per_apic_tick_shift24 = in_.tsc_per_apic_tick_shift24;
    state->apply_list = vcpu_pages_ + 3 * kPageSize;
    state->range_count = in_.ram_count;
    for (u32 i = 0; i < in_.ram_count; ++i) state->ram[i] = in_.ram[i];
    state->window_count = in_.window_count;
    for (u32 i = 0; i < in_.window_count; ++i) {
      u64 start = align_down(in_.windows[i].physical_address, kPageSize);
      u64 end = align_up(in_.windows[i].physical_address + in_.windows[i].size, kPageSize);
      state->windows[i] = {start, end - start};
    }
    if (relro_end_ != relro_start_) state->sealed[state->sealed_count++] = {relro_start_, relro_end_ - relro_start_};
  }

  void fill_boot_info() {
    BootInfo& info = boot_info();
    info.magic = kBootInfoMagic;
    info.version = kBootInfoVersion;
    info.machine = in_.machine;
    info.kernel_base = kernel_base_;
    info.kernel_size = header_.kernel_size;
    info.direct_base = direct_base_;
    info.direct_size = direct_size_;
    info.image_base = image_base_;
    info.image_size = header_.file_size;
    info.image_physical = in_.image_physical;
    info.vcpu_shared_physical = shared_;
    info.config_size = in_.config_size;
    info.ram_size = in_.ram_size;
    info.nub_size = region_end_ - in_.area_start;
    info.start_tsc = in_.start_tsc;
    info.ram_is_zero = in_.ram_is_zero;
    info.image_flags = image_flags();
    info.monitor_tables = in_.monitor_tables;
    for (u32 i = 0; i < in_.ram_count; ++i) {
      u64 start = in_.ram[i].start, end = start + in_.ram[i].size;
      if (in_.area_start >= start && in_.area_start < end) {
        add_free(start, in_.area_start);
        start = next_;
      }
      add_free(start, end);
    }
    for (int i = 0; i < 4; ++i) {
      u64 word = random();
      memcpy(info.entropy + 8 * i, &word, 8);
    }
  }
  void add_free(u64 start, u64 end) {
    BootInfo& info = boot_info();
    if (start < end && info.free_range_count < kFreeRangesMax) info.free_ranges[info.free_range_count++] = {start, end - start};
  }

  void fill_cpu(CpuState* cpu) {
    const CpuFeatures& has = in_.features;
    *cpu = {};
    cpu->rip = kernel_base_ + header_.kernel_start;
    cpu->rsp = boot_info().boot_stack_top - 8;  // as if called
    cpu->rdi = boot_info_va_;
    cpu->rflags = 0x202;
    cpu->cr0 = 0x80050033;  // PG AM WP NE ET MP PE
    cpu->cr3 = root_;
    // PAE PGE OSFXSR OSXMMEXCPT, then what the CPU has.
    cpu->cr4 = 0x6a0 | (has.umip ? 1 << 11 : 0) | (has.fsgsbase ? 1 << 16 : 0) | (has.xcr0 ? 1 << 18 : 0) | (has.smep ? 1 << 20 : 0) |
               (has.smap ? 1 << 21 : 0);
    cpu->efer = 0xd01;  // SCE LME LMA NXE
    cpu->xcr0 = has.xcr0;
    cpu->gs_base = boot_info().vcpu_shared;
    u64 data = kNubVcpuBase + kBlockData;
    cpu->gdt_base = data + kDataGdt;
    cpu->gdt_limit = HUSK_TSS + 15;
    cpu->idt_base = data + kDataIdt;
    cpu->idt_limit = 16 * HUSK_VECTOR_COUNT - 1;
    cpu->tss_base = data + kDataTss;
    cpu->tss_limit = static_cast<u16>(tss_limit());
    // SYSRET's base is given for completeness; the nub returns by IRETQ only.
    cpu->msrs[0] = {0xc0000081, u64{HUSK_USER_CS - 16} << 48 | u64{HUSK_NUB_CS} << 32};  // STAR
    cpu->msrs[1] = {0xc0000082, lstar()};                                                // LSTAR
    cpu->msrs[2] = {0xc0000083, lstar()};                                                // CSTAR: 32-bit code does not exist
    cpu->msrs[3] = {0xc0000084, 0x47700};                                                // SFMASK: AC NT IOPL DF IF TF
    cpu->msr_count = 4;
  }

  const MachineInput& in_;
  const ImageHeader& header_;
  At at_;
  u64 next_ = 0, pool_pages_ = 0, pool_used_ = 0, root_ = 0, direct_size_ = 0;
  u64 vcpu_pages_ = 0, nub_state_ = 0, usage_ = 0, pool_ = 0, region_end_ = 0;
  u64 shared_ = 0, upcall_stack_ = 0, boot_stack_ = 0, boot_info_ = 0, monitor_page_ = 0, config_ = 0;
  u64 relro_start_ = 0, relro_end_ = 0;
  u64 kernel_base_ = 0, direct_base_ = 0, image_base_ = 0, area_ = 0, area_end_ = 0, boot_info_va_ = 0;
  u64 nub_data_[kImagePartsMax] = {}, kernel_copy_[kImagePartsMax] = {};
  u64 random_count_ = 0;
  bool slot_used_[255] = {};
  bool full_ = false;
};

template <typename At>
const char* build_machine(const MachineInput& input, At at, MachineOutput* output) {
  return MachineBuilder<At>(input, at).build(output);
}

}  // namespace husk::abi

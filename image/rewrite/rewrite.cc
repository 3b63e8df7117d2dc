// Finds the sites of one file, proves which can be replaced, and replaces them.
//
// CPUID leaves a virtual machine, which is dear; it is replaced by the same means.
// In three passes: (1) every 0f 05 and 0f a2 in executable segments that a decoded function confirms is a site, with possible
// windows; (2) one scan of the whole file for anything that points into those windows; (3) for each site the first
// window that nothing points into becomes a jump.
#include "image/rewrite/rewrite.h"

#include <algorithm>

#include "image/rewrite/code_map.h"
#include "image/rewrite/segment.h"
#include "image/rewrite/trampoline.h"

namespace husk::image {
namespace {

constexpr u64 kTrampolineAlignment = 16;
constexpr u8 kSyscallByte = 0x05, kCpuidByte = 0xa2;  // behind 0x0f

struct Site {
  u64 address;
  InstructionClass kind;  // kSyscall or kCpuid
  const DecodedFunction* function;
  std::vector<Window> windows;
};

class Rewriter {
 public:
  explicit Rewriter(const ElfView& elf) : elf_(elf), map_(elf), interesting_(elf) {}

  RewriteResult run() {
    for (const auto& segment : elf_.segments()) {
      if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X)) find_sites(segment);
    }
    if (!sites_.empty()) rewrite_sites();
    std::sort(report_.left.begin(), report_.left.end(), [](const LeftSite& a, const LeftSite& b) { return a.address < b.address; });
    return {std::move(report_), std::move(file_)};
  }

 private:
  void leave(u64 address, std::string reason) { report_.left.push_back({address, std::move(reason)}); }

  void find_sites(const Elf64_Phdr& segment) {
    Bytes code = elf_.contents(segment);
    for (u64 offset = 0; offset + 1 < code.size(); ++offset) {
      auto* found = static_cast<const u8*>(memchr(code.data() + offset, 0x0f, code.size() - 1 - offset));
      if (!found) return;
      offset = static_cast<u64>(found - code.data());
      if (code[offset + 1] == kSyscallByte) consider(segment.p_vaddr + offset, kSyscall);
      if (code[offset + 1] == kCpuidByte) consider(segment.p_vaddr + offset, kCpuid);
    }
  }

  void consider(u64 address, InstructionClass kind) {
    // Only system calls that stay are worth a word: what CPUID does, it does in any case.
    auto refuse = [&](std::string reason) {
      if (kind == kSyscall) leave(address, std::move(reason));
    };
    const Function* function = map_.function_at(address);
    if (!function) {
      // With section headers, bytes outside executable sections are data (old linkers put it beside code).
      if (may_be_code(address)) refuse("no function is known here (perhaps data)");
      return;
    }
    const DecodedFunction& decoded = map_.decode(*function);
    const auto& code = decoded.instructions;
    auto at =
        std::lower_bound(code.begin(), code.end(), address, [](const Instruction& instruction, u64 value) { return instruction.address < value; });
    bool is_site = at != code.end() && at->address == address && at->mnemonic_class == kind;
    if (!decoded.problem.empty()) return refuse(decoded.problem);
    if (!is_site) return;
    if (kind == kSyscall && !function->unwind && is_signal_return(address)) {
      return refuse("signal return that unwinders recognise by its bytes");
    }
    Site site{address, kind, &decoded, possible_windows(elf_, decoded, static_cast<size_t>(at - code.begin()))};
    if (site.windows.empty()) return refuse("too few movable bytes around it");
    for (const auto& window : site.windows) {
      map_.add_short_jumps(window.start, window.end);
      for (u64 byte = window.start; byte < window.end; ++byte) interesting_.add(byte);
    }
    sites_.push_back(std::move(site));
  }

  bool may_be_code(u64 address) const {
    if (elf_.sections().empty()) return true;
    return std::any_of(elf_.sections().begin(), elf_.sections().end(),
                       [&](const Elf64_Shdr& section) { return (section.sh_flags & SHF_EXECINSTR) && address - section.sh_addr < section.sh_size; });
  }

  // mov $15, %eax or %rax before the site.
  bool is_signal_return(u64 site) const {
    auto before = elf_.at_address(site - 4, 4);
    return before && *read_at<u32>(*before, 0) == 15;
  }

  void rewrite_sites() {
    map_.scan_everything(interesting_);
    SegmentPlan plan = plan_segment(elf_);
    if (!plan.problem.empty()) {
      for (const auto& site : sites_) {
        if (site.kind == kSyscall) leave(site.address, plan.problem);
      }
      return;
    }
    file_.assign(elf_.bytes().begin(), elf_.bytes().end());
    std::vector<u8> trampolines;
    for (auto& site : sites_) rewrite_site(site, plan.address + plan.header_space, trampolines);
    if (trampolines.empty()) return file_.clear();
    file_ = add_segment(elf_, plan, std::move(file_), trampolines);
    report_.trampolines_address = plan.address;
    report_.trampolines_size = plan.header_space + trampolines.size();
  }

  void rewrite_site(Site& site, u64 base, std::vector<u8>& trampolines) {
    // A site that jumps lead to should be served as a call on those ways too: prefer windows that start there.
    if (map_.targets().contains(site.address)) {
      std::stable_partition(site.windows.begin(), site.windows.end(), [&](const Window& window) { return window.start == site.address; });
    }
    const char* reason = "";
    for (const auto& window : site.windows) {
      u64 checked_end = window.site_stays(site.address) ? site.address : window.end;
      if (map_.targets().any(window.start + 1, checked_end)) {
        reason = "something may jump between it and its neighbours";
        continue;
      }
      if (window.start < used_until_) {
        reason = "its neighbours belong to another site";
        continue;
      }
      u64 at = align_up(trampolines.size(), kTrampolineAlignment);
      auto code = make_trampoline(elf_, *site.function, window, base + at);
      if (code.empty() || !patch(window, site.address, base + at)) {
        reason = "the trampoline is out of reach";
        continue;
      }
      trampolines.resize(at, 0xcc);
      trampolines.insert(trampolines.end(), code.begin(), code.end());
      used_until_ = window.end;
      if (site.kind == kSyscall) report_.rewritten.push_back(site.address);
      else ++report_.cpuid_rewritten;
      return;
    }
    if (site.kind == kSyscall) leave(site.address, reason);
  }

  // Puts the jump in place of the window; bytes that are left over trap if they are ever reached.
  bool patch(const Window& window, u64 site, u64 trampoline) {
    i64 distance = static_cast<i64>(trampoline - (window.start + 5));
    if (distance != static_cast<int32_t>(distance)) return false;
    Bytes original = *elf_.at_address(window.start, window.end - window.start);
    u64 offset = static_cast<u64>(original.data() - elf_.bytes().data());
    u64 end = window.site_stays(site) ? site : window.end;
    for (u64 address = window.start + 5; address < end; ++address) file_[offset + address - window.start] = 0xcc;
    file_[offset] = 0xe9;
    write_at(file_, offset + 1, static_cast<int32_t>(distance));
    return true;
  }

  const ElfView& elf_;
  CodeMap map_;
  TargetSet interesting_;
  std::vector<Site> sites_;
  std::vector<u8> file_;
  RewriteReport report_;
  u64 used_until_ = 0;  // sites come in ascending order
};

bool has_bytes(const ElfView& elf, std::initializer_list<u8> bytes) {
  return std::any_of(elf.segments().begin(), elf.segments().end(), [&](const Elf64_Phdr& segment) {
    return segment.p_type == PT_LOAD && (segment.p_flags & PF_X) &&
           memmem(elf.contents(segment).data(), segment.p_filesz, bytes.begin(), bytes.size()) != nullptr;
  });
}

}  // namespace

RewriteResult rewrite_system_calls(const ElfView& elf) {
  if (!has_bytes(elf, {0x0f, kSyscallByte}) && !has_bytes(elf, {0x0f, kCpuidByte})) return {};
  return Rewriter(elf).run();
}

}  // namespace husk::image

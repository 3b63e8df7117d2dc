// Windows around system-call sites, and the code that replaces them. Internal to rewrite/.
#pragma once

#include "image/rewrite/code_map.h"

namespace husk::image {

// Instructions [first, last) of a function are displaced into the trampoline; the one at `site` is the `syscall`.
struct Window {
  size_t first, site, last;
  u64 start, end;  // addresses
  // The 5-byte jump ends before the `syscall`, which stays in place for restarts.
  bool site_stays(u64 site_address) const { return start + 5 <= site_address; }
};

// Windows for the site at index `site`, best first. Nothing about jump targets is checked here.
std::vector<Window> possible_windows(const ElfView& elf, const DecodedFunction& function, size_t site);

// Code of the trampoline at address `at`; empty if a distance does not fit.
std::vector<u8> make_trampoline(const ElfView& elf, const DecodedFunction& function, const Window& window, u64 at);

}  // namespace husk::image

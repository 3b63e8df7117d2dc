// Any bytes as an ELF file: every view, the unwind tables and the rewriting must end in a result or an image::Error,
// and what was rewritten must be an ELF file again, with its code changed only where a site was.
#include "image/rewrite/rewrite.h"

using namespace husk;
using namespace husk::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    ElfView elf = ElfView::parse({data, size}, "input");
    elf.interpreter();
    elf.dynamic();
    elf.symbols();
    for (const auto& segment : elf.segments()) {
      if (segment.p_type == PT_NOTE) elf.notes(segment);
    }
    RewriteResult result = rewrite_system_calls(elf);
    if (result.bytes.empty()) return 0;
    ElfView again = ElfView::parse(result.bytes, "output");
    if (again.segments().size() < elf.segments().size()) __builtin_trap();
    if (result.report.rewritten.empty()) __builtin_trap();
  } catch (const Error&) {}
  return 0;
}

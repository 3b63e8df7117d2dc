// Running a program: preparation, which may fail without harm, and the replacement of the process image, which may not.
#pragma once
#undef linux

#include "kernel/linux/elf_image.h"
#include "kernel/linux/task.h"

namespace husk::linux {

struct Program {
  Ref<vfs::File> file, interpreter_file;  // the ELF file (not the #! script) and its PT_INTERP
  ElfImage elf, interpreter;
  String name;  // as given: AT_EXECFN, and the thread's name is its last component
  Vec<String> arguments, environment;
  String failed;  // the path that made prepare_program() fail
};

// Opens and checks everything; follows #! lines. ENOENT, EACCES, ENOEXEC, ELOOP, ELIBBAD (the interpreter), ENOMEM.
Result<void> prepare_program(Program& program, const vfs::Path& base, std::string_view path);
// Replaces the current process's image and sets the registers of the current thread's frame. After an error the process is
// unusable. The caller has seen to other threads.
Result<void> replace_image(Program& program);
// Bytes of memory that the program needs at least, for messages.
u64 least_memory(const Program& program);

}  // namespace husk::linux

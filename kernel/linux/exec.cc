// See exec.h: execve(2), the layout of a new address space and its randomness.
//
// Places are as random as on x86-64 Linux: 28 bits of pages for program, mmap area and interpreter, 22 for the stack, 18 for brk.
#include "kernel/linux/exec.h"

#include "kernel/cpuid.h"

#include <asm/hwcap2.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "kernel/linux/elf_loader.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/signal_frame.h"
#include "kernel/linux/stack_image.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/timers.h"
#include "kernel/linux/vdso.h"
#include "kernel/mem/user_copy.h"
#include "kernel/random.h"
#include "kernel/sched/traps.h"

namespace husk::linux {
namespace {

constexpr u64 kProgramBase = align_down(kUserEnd / 3 * 2, kPageSize);  // ELF_ET_DYN_BASE
constexpr u64 kMmapRandomPages = u64{1} << 28, kStackRandomPages = u64{1} << 22, kBrkRandomPages = u64{1} << 18;
constexpr u64 kStackGuard = 256 * kPageSize, kStackGapMin = 128 * kMiB, kStackInitial = 128 * kKiB;
constexpr u64 kStackUsed = 64 * kKiB;  // made present at once
constexpr int kScriptDepthMax = 5;
constexpr size_t kScriptLineMax = 256;

u64 random_page_offset(u64 pages) { return configuration().randomise ? random_u64() % pages * kPageSize : 0; }

Result<Ref<vfs::File>> open_executable(Program& program, const vfs::Path& base, std::string_view path) {
  program.failed = TRY(String::from(path));
  Ref<vfs::File> file = TRY(tree().open(base, path, O_RDONLY | O_CLOEXEC, 0));
  vfs::Stat stat = TRY(file->stat());
  if ((stat.mode & S_IFMT) != S_IFREG || (stat.mode & 0111) == 0) return Error(EACCES);
  return file;
}

// "#!interpreter [one argument]": puts them before the arguments, with the script's path as the first.
Result<String> use_script(Program& program, std::string_view line, std::string_view script) {
  auto skip = [&](size_t at) { return std::min(line.find_first_not_of(" \t", at), line.size()); };
  line = line.substr(0, line.find('\n'));
  if (line.size() < 2) return Error(ENOEXEC);
  size_t start = skip(2), end = std::min(line.find_first_of(" \t", start), line.size());
  std::string_view interpreter = line.substr(start, end - start);
  if (interpreter.empty()) return Error(ENOEXEC);
  size_t argument_start = skip(end), argument_end = line.find_last_not_of(" \t\r") + 1;
  Vec<String> arguments;
  auto add = [&](std::string_view text) -> Result<void> {
    String copy = TRY(String::from(text));
    return arguments.push_back(std::move(copy));
  };
  TRY(add(interpreter));
  if (argument_end > argument_start) TRY(add(line.substr(argument_start, argument_end - argument_start)));
  TRY(add(script));
  for (size_t i = 1; i < program.arguments.size(); ++i) TRY(arguments.push_back(std::move(program.arguments[i])));
  program.arguments = std::move(arguments);
  return String::from(interpreter);
}

Result<void> read_interpreter(Program& program) {
  auto file = open_executable(program, current_file_context().root, program.elf.interpreter);
  if (!file.ok()) return file.error();
  program.interpreter_file = file.release();
  FileSource source(*program.interpreter_file);
  auto elf = read_elf(source);
  if (!elf.ok()) return Error(ELIBBAD);
  program.interpreter = elf.release();
  return {};
}

// --- the new address space ---------------------------------------------------------------------------------------------

struct StackPlace {
  u64 top, mmap_top;
};

StackPlace place_stack(u64 stack_limit) {
  StackPlace place;
  place.top = kUserEnd - random_page_offset(kStackRandomPages);
  u64 random_maximum = configuration().randomise ? kStackRandomPages * kPageSize : 0;
  u64 gap = std::clamp(stack_limit, kStackGapMin, kUserEnd / 6 * 5 - random_maximum) + random_maximum + kStackGuard;
  place.mmap_top = align_down(kUserEnd - gap, kPageSize) - random_page_offset(kMmapRandomPages);
  return place;
}

Result<void> new_address_space(Process& process, const StackPlace& place) {
  u32 nub_space = process.space ? process.space->nub_space() : 0;
  process.space = nullptr;  // empties the page tables that the new one takes over
  process.space = TRY(mem::AddressSpace::create(nub_space, place.mmap_top, configuration().jit));
  process.space->set_stack_limit(std::min(process.limits[RLIMIT_STACK].soft, u64{1} << 40));
  return {};
}

Result<void> map_program(Process& process, const Program& program) {
  const ElfImage& elf = program.elf;
  ImageLayout& layout = process.layout;
  layout = {};
  Ref<mem::MemoryObject> object = TRY(program.file->memory_object());
  u64 base = elf.position_independent ? kProgramBase + random_page_offset(kMmapRandomPages) : 0;
  layout.load_bias = TRY(map_elf(*process.space, elf, std::move(object), base));
  layout.entry = elf.entry + layout.load_bias;
  for (const ElfSegment& segment : elf.segments) {
    u64 start = segment.address + layout.load_bias;
    if ((segment.protection & PROT_EXEC) != 0) {
      if (layout.code_start == 0) layout.code_start = start;
      layout.code_end = start + segment.file_size;
    } else if ((segment.protection & PROT_WRITE) != 0) {
      if (layout.data_start == 0) layout.data_start = start;
      layout.data_end = start + segment.file_size;
    }
  }
  layout.heap_start = elf.end + layout.load_bias + random_page_offset(kBrkRandomPages);
  if (program.interpreter_file) {
    object = TRY(program.interpreter_file->memory_object());
    layout.interpreter_base = TRY(map_elf(*process.space, program.interpreter, std::move(object), 0));
  }
  layout.vdso = TRY(map_vdso(*process.space));
  process.space->set_heap_start(layout.heap_start);
  return {};
}

Result<Vec<AuxiliaryEntry>> auxiliary_entries(const Process& process, const ElfImage& elf) {
  const ImageLayout& layout = process.layout;
  const Credentials& who = process.credentials;
  const AuxiliaryEntry entries[] = {
      {AT_SYSINFO_EHDR, layout.vdso},
      {AT_HWCAP, cpuid(1).edx},
      {AT_PAGESZ, kPageSize},
      {AT_CLKTCK, 100},
      {AT_PHDR, elf.program_headers_address + layout.load_bias},
      {AT_PHENT, sizeof(Elf64_Phdr)},
      {AT_PHNUM, elf.program_header_count},
      {AT_BASE, layout.interpreter_base},
      {AT_FLAGS, 0},
      {AT_ENTRY, layout.entry},
      {AT_UID, who.uid},
      {AT_EUID, who.euid},
      {AT_GID, who.gid},
      {AT_EGID, who.egid},
      {AT_SECURE, 0},
      {AT_HWCAP2, HWCAP2_FSGSBASE},
      {AT_MINSIGSTKSZ, signal_frame_size_max()},
  };
  Vec<AuxiliaryEntry> result;
  for (const AuxiliaryEntry& entry : entries) TRY(result.push_back(entry));
  return result;
}

Result<u64> make_stack(Process& process, Program& program, u64 top) {
  StackRequest request;
  request.top = top;
  request.gap = configuration().randomise ? random_u64() % 8192 : 0;
  request.arguments = {program.arguments.data(), program.arguments.size()};
  request.environment = {program.environment.data(), program.environment.size()};
  request.executable = program.name;
  Vec<AuxiliaryEntry> auxiliary = TRY(auxiliary_entries(process, program.elf));
  request.auxiliary = {auxiliary.data(), auxiliary.size()};
  random_bytes(request.random, sizeof(request.random));
  StackImage image = TRY(build_stack(request));

  mem::MapRequest stack;
  stack.length = align_up(image.bytes.size(), kPageSize) + kStackInitial;
  stack.address = top - stack.length;
  stack.protection = PROT_READ | PROT_WRITE;
  stack.placement = mem::MapRequest::Placement::fixed;
  stack.grows_down = true;
  stack.label = "[stack]";
  TRY(process.space->map(stack));
  u64 used = align_down(image.stack_pointer, kPageSize) - kStackUsed;
  TRY(process.space->populate(used, top - used, mem::Access::write));
  TRY(mem::copy_to_user(image.stack_pointer, image.bytes.data(), image.bytes.size()));

  ImageLayout& layout = process.layout;
  layout.stack_start = image.stack_pointer;
  layout.arguments_start = image.arguments_start;
  layout.arguments_end = image.arguments_end;
  layout.environment_start = image.environment_start;
  layout.environment_end = image.environment_end;
  process.auxiliary_vector = std::move(image.auxiliary_vector);
  return image.stack_pointer;
}

// --- what else execve resets -------------------------------------------------------------------------------------------

void reset_signals(Process& process) {
  for (SignalAction& action : process.actions->of) {
    u64 handler = action.handler == 1 ? 1 : 0;
    action = SignalAction{.handler = handler};
  }
}

void name_task(Task& task, std::string_view path) {
  std::string_view last = path.substr(path.rfind('/') + 1);
  size_t length = std::min(last.size(), sizeof(task.name) - 1);
  std::fill(std::begin(task.name), std::end(task.name), '\0');
  std::copy_n(last.data(), length, task.name);
}

void reset_task(Task& task, u64 entry, u64 stack_pointer) {
  task.alternate_stack = {};
  task.clear_child_tid = task.robust_list = task.rseq_area = 0;
  task.tid = task.process->pid;
  TrapFrame* frame = task.thread->frame();
  *frame = TrapFrame{};
  frame->rip = entry;
  frame->rsp = stack_pointer;
  frame->cs = HUSK_USER_CS;
  frame->ss = HUSK_USER_SS;
  frame->rflags = 0x202;
  frame->orig_rax = frame->vector = ~u64{0};
  sched::set_fs_base(0);
  sched::init_vector_state();
  sched::return_with_frame();
}

Result<Vec<String>> user_strings(u64 address, u64& budget) {
  Vec<String> result;
  if (address == 0) return result;
  for (;; address += sizeof(u64)) {
    u64 pointer = TRY(mem::read_user(mem::UserPtr<u64>(address)));
    if (pointer == 0) return result;
    auto text = mem::string_from_user(pointer, std::min<u64>(budget, 128 * kKiB));
    if (!text.ok()) return Error(text.error().code() == ENAMETOOLONG ? E2BIG : text.error().code());
    u64 used = text.value().size() + 1 + sizeof(u64);
    if (used > budget) return Error(E2BIG);
    budget -= used;
    TRY(result.push_back(text.release()));
  }
}

Result<i64> execute(const vfs::Path& base, std::string_view path, u64 arguments, u64 environment) {
  {
    Program program;
    u64 budget = std::max(current_process().limits[RLIMIT_STACK].soft / 4, 128 * kKiB);
    budget = std::min(budget, 6 * kMiB);
    program.arguments = TRY(user_strings(arguments, budget));
    program.environment = TRY(user_strings(environment, budget));
    if (program.arguments.empty()) TRY(program.arguments.push_back(String{}));
    program.name = TRY(String::from(path));
    TRY(prepare_program(program, base, path));
    kill_other_tasks();
    current_process().files = TRY(current_files().copy());
    current_files().close_for_exec();
    current_process().executed = true;
    if (replace_image(program).ok()) return 0;
  }
  exit_process(SIGKILL);  // as Linux: no way back
}

}  // namespace

Result<void> prepare_program(Program& program, const vfs::Path& base, std::string_view path) {
  String current = TRY(String::from(path));
  for (int depth = 0; depth <= kScriptDepthMax; ++depth) {
    program.file = TRY(open_executable(program, base, current));
    FileSource source(*program.file);
    char line[kScriptLineMax] = {};
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(line, sizeof(line) - 1);
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    u64 offset = 0;
    size_t length = TRY(program.file->read(buffer, &offset));
    if (length > 2 && line[0] == '#' && line[1] == '!') {
      current = TRY(use_script(program, {line, length}, current));
      continue;
    }
    program.elf = TRY(read_elf(source));
    if (!program.elf.interpreter.empty()) TRY(read_interpreter(program));
    return {};
  }
  return Error(ELOOP);
}

Result<void> replace_image(Program& program) {
  Task& task = current_task();
  Process& process = *task.process;
  StackPlace place = place_stack(process.limits[RLIMIT_STACK].soft);
  TRY(new_address_space(process, place));
  TRY(map_program(process, program));
  u64 stack_pointer = TRY(make_stack(process, program, place.top));
  reset_signals(process);
  delete_posix_timers(process);
  name_task(task, program.name);
  process.executable_path = program.file->path;
  process.executable = TRY(tree().path_of(program.file->path));
  u64 entry = program.interpreter_file ? program.interpreter.entry + process.layout.interpreter_base : process.layout.entry;
  reset_task(task, entry, stack_pointer);
  return {};
}

u64 least_memory(const Program& program) {
  u64 bytes = kStackInitial;
  for (const ElfImage* elf : {&program.elf, &program.interpreter}) {
    for (const ElfSegment& segment : elf->segments) {
      if ((segment.protection & PROT_WRITE) != 0) bytes += align_up(segment.memory_size, kPageSize) + kPageSize;
    }
  }
  return bytes;
}

HUSK_SYSCALL(execve, u64 path, u64 arguments, u64 environment) {
  String text = TRY(user_path(path));
  if (text.empty()) return Error(ENOENT);
  return execute(current_file_context().working_directory, text, arguments, environment);
}

HUSK_SYSCALL(execveat, int directory_fd, u64 path, u64 arguments, u64 environment, u32 flags) {
  if ((flags & ~u32{AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW}) != 0) return Error(EINVAL);
  String text = TRY(user_path(path));
  if (!text.empty()) return execute(TRY(base_directory(directory_fd)), text, arguments, environment);
  if ((flags & AT_EMPTY_PATH) == 0) return Error(ENOENT);
  Ref<vfs::File> file = TRY(current_file(directory_fd));
  if (!file->path) return Error(EACCES);
  text = TRY(tree().path_of(file->path));
  file = nullptr;
  return execute(current_file_context().root, text, arguments, environment);
}

}  // namespace husk::linux

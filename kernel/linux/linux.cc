// See linux.h: wiring of this folder, the first process, and the end of the machine.
#include "kernel/linux/linux.h"

#include <string.h>

#include "abi/control_records.h"
#include "abi/monitor_device.h"
#include "kernel/drivers/console.h"
#include "kernel/linux/dispatch.h"
#include "kernel/linux/exec.h"
#include "kernel/linux/hooks.h"
#include "kernel/linux/machine_name.h"
#include "kernel/linux/network.h"
#include "kernel/linux/task.h"
#include "kernel/linux/vdso.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/sched/traps.h"
#include "platform/platform.h"

namespace husk::linux {
namespace {

constexpr u32 kCannotExecute = 126, kNotFound = 127;

struct Machine {
  Configuration configuration;
  abi::MonitorPage* monitor_page = nullptr;
  u64 tsc_kernel_start = 0, tsc_program_start = 0;
  vfs::Tree* tree = nullptr;
  vfs::File* terminal = nullptr;  // lives for ever
};
constinit Machine machine;

struct Counters {
  u64 called, trapped;
};

Counters syscall_counters() {
  const abi::VcpuShared& shared = *this_cpu().shared;
  return {shared.called, shared.scratch[(HUSK_CPU_TRAPPED - HUSK_VCPU_SCRATCH) / 8]};
}

template <typename T>
T number_at(std::span<const u8> bytes, size_t offset, T otherwise) {
  if (bytes.size() < offset + sizeof(T)) return otherwise;
  T value;
  memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

void apply_record(Configuration& to, const abi::ConfigRecord& record) {
  switch (record.tag) {
    case abi::ConfigTag::program: to.program = record.text(); break;
    case abi::ConfigTag::directory: to.directory = record.text(); break;
    case abi::ConfigTag::host_name: to.host_name = record.text(); break;
    case abi::ConfigTag::user:
      to.uid = number_at<u32>(record.bytes, 0, 0);
      to.gid = number_at<u32>(record.bytes, 4, 0);
      break;
    case abi::ConfigTag::terminal:
      for (size_t i = 0; i < 3; ++i) to.terminal[i] = number_at<u8>(record.bytes, i, 0) != 0;
      to.rows = number_at<u16>(record.bytes, 4, 0);
      to.columns = number_at<u16>(record.bytes, 6, 0);
      break;
    case abi::ConfigTag::trace: to.trace = true; break;
    case abi::ConfigTag::jit: to.jit = true; break;
    case abi::ConfigTag::address_randomisation: to.randomise = number_at<u8>(record.bytes, 0, 1) != 0; break;
    case abi::ConfigTag::stack_limit: to.stack_limit = number_at<u64>(record.bytes, 0, to.stack_limit); break;
    default: break;
  }
}

bool has_process() { return machine.tree != nullptr; }

void signal_program(int number) {
  if (!has_process() || number < 1 || number > kSignalMax) return;
  SignalInfo info = kernel_signal(number);
  send_signal(init_process(), info);
}

class ProgramTerminal final : public vfs::TerminalHandler {
 public:
  void terminal_signal(int linux_signal, i64) override { signal_program(linux_signal); }
  void terminal_mode(bool raw) override {
    const u8 body = raw ? 1 : 0;
    drivers::send_record(abi::RecordType::window, {&body, 1}, false);
  }
};
constinit ProgramTerminal program_terminal;

void handle_record(abi::RecordType type, std::span<const u8> body) {
  if (type == abi::RecordType::window_size) {
    machine.configuration.rows = number_at<u16>(body, 0, 0);
    machine.configuration.columns = number_at<u16>(body, 2, 0);
    if (machine.terminal != nullptr) {
      vfs::terminal_resize(*machine.terminal, machine.configuration.rows, machine.configuration.columns);
    }
  } else if (type == abi::RecordType::signal) {
    signal_program(number_at<int>(body, 0, 0));
  }
}

// --- the first process -----------------------------------------------------------------------------------------------------

Result<void> collect_strings(Program& program, const Configuration& from) {
  abi::ConfigReader reader(from.bytes);
  while (auto record = reader.next()) {
    bool argument = record->tag == abi::ConfigTag::argument;
    if (!argument && record->tag != abi::ConfigTag::environment) continue;
    String text = TRY(String::from(record->text()));
    TRY((argument ? program.arguments : program.environment).push_back(std::move(text)));
  }
  program.name = TRY(String::from(from.program));
  if (program.arguments.empty()) {
    String name = TRY(String::from(from.program));
    TRY(program.arguments.push_back(std::move(name)));
  }
  return {};
}

[[noreturn]] void cannot_run(const Program& program, int error) {
  const std::string_view name = machine.configuration.program;
  const int length = static_cast<int>(name.size());
  const mem::MemoryStatistics memory = mem::memory_statistics();
  u32 status = kCannotExecute;
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      status = kNotFound;
      if (!program.elf.interpreter.empty() && !program.interpreter_file) {
        log(LogLevel::error, "%.*s needs the interpreter %s, which is not in the image", length, name.data(), program.elf.interpreter.c_str());
      } else {
        log(LogLevel::error, "%s: no such file in the image", program.failed.c_str());
      }
      break;
    case EACCES: log(LogLevel::error, "%s: not an executable file", program.failed.c_str()); break;
    case ENOEXEC: log(LogLevel::error, "%s: not a program for x86-64 Linux", program.failed.c_str()); break;
    case ELIBBAD: log(LogLevel::error, "%s: the interpreter is not an ELF file for x86-64", program.elf.interpreter.c_str()); break;
    case ENOMEM:
      log(LogLevel::error, "not enough memory: %.*s needs %llu KiB to start, the machine has %llu KiB free; use -m", length, name.data(),
          static_cast<unsigned long long>(least_memory(program) / kKiB), static_cast<unsigned long long>(memory.free / kKiB));
      break;
    default: log(LogLevel::error, "%.*s cannot be run: error %d", length, name.data(), error);
  }
  end_machine(status, 0);
}

// What is missing of the directory is made.
Result<void> enter_directory(FileContext& context, std::string_view path) {
  auto directory = tree().resolve(context.root, path, vfs::kDirectory);
  for (size_t end = 1; !directory.ok() && end <= path.size(); ++end) {
    if (end < path.size() && path[end] != '/') continue;
    (void)tree().make_node(context.root, path.substr(0, end), vfs::kDirectoryType | 0755, 0);
    if (end == path.size()) directory = tree().resolve(context.root, path, vfs::kDirectory);
  }
  if (!directory.ok()) {
    log(LogLevel::error, "working directory %.*s: cannot be one", static_cast<int>(path.size()), path.data());
    return directory.error();
  }
  context.working_directory = directory.release();
  return {};
}

void announce_start() {
  machine.tsc_program_start = platform::ticks();
  if (machine.monitor_page != nullptr) machine.monitor_page->tsc_program_start = machine.tsc_program_start;
  drivers::send_record(abi::RecordType::ready, {}, true);
}

// The first task's first steps, on its own kernel stack, so that file systems may block.
void run_program(void*) {
  Program* program = new (std::nothrow) Program;  // large; kept off the kernel stack
  if (program == nullptr) end_machine(kCannotExecute, 0);
  FileContext& context = current_file_context();
  write_network_files();
  if (!enter_directory(context, machine.configuration.directory).ok()) end_machine(kCannotExecute, 0);
  Result<void> result = collect_strings(*program, machine.configuration);
  if (result.ok()) result = prepare_program(*program, context.working_directory, machine.configuration.program);
  if (result.ok()) result = replace_image(*program);
  if (!result.ok()) cannot_run(*program, result.error().code());
  delete program;
  if (!machine.configuration.trace) answer_ids_at_once();
  announce_start();
}

Result<void> make_first_process(Ref<vfs::File> input, Ref<vfs::File> output, Ref<vfs::File> error) {
  const Configuration& from = machine.configuration;
  Ref<Process> process = TRY(make_ref<Process>());
  process->files = TRY(make_ref<FdTable>());
  process->actions = TRY(make_ref<SignalActions>());
  process->file_context = TRY(make_ref<FileContext>());
  process->file_context->root = process->file_context->working_directory = machine.tree->root();
  Credentials& who = process->credentials;
  who.uid = who.euid = who.suid = from.uid;
  who.gid = who.egid = who.sgid = from.gid;
  process->limits[3].soft = from.stack_limit;       // RLIMIT_STACK
  process->files->limit = process->limits[7].soft;  // RLIMIT_NOFILE
  for (Ref<vfs::File>* file : {&input, &output, &error}) TRY(process->files->install(std::move(*file), false));
  Ref<Task> task = TRY(create_task(process, run_program, nullptr));
  sched::start(task->thread);
  return {};
}

}  // namespace

vfs::TerminalHandler& terminal_handler() { return program_terminal; }
void set_terminal(Ref<vfs::File> terminal) { machine.terminal = terminal.leak(); }

const Configuration& configuration() { return machine.configuration; }

vfs::Tree& tree() {
  HUSK_ASSERT(machine.tree != nullptr);
  return *machine.tree;
}

Configuration decode_configuration(std::span<const u8> bytes) {
  Configuration result;
  result.bytes = bytes;
  abi::ConfigReader reader(bytes);
  while (auto record = reader.next()) apply_record(result, *record);
  return result;
}

void init(const abi::BootInfo& info, u64 start_tsc, const Configuration& wanted) {
  machine.configuration = wanted;
  machine.monitor_page = reinterpret_cast<abi::MonitorPage*>(info.monitor_page);
  machine.tsc_kernel_start = start_tsc;
  set_host_name(wanted.host_name);
  sched::set_trap_hooks({handle_page_fault, handle_exception, before_return, pre_empted});
  install_syscall_table(wanted.trace);
  drivers::set_record_handler(handle_record);
  if (!init_vdso(info).ok()) HUSK_PANIC("the vDSO is not in the image's read-only data");
}

void start_init(vfs::Tree& root_tree, Ref<vfs::File> standard_input, Ref<vfs::File> standard_output, Ref<vfs::File> standard_error) {
  machine.tree = &root_tree;
  Result<void> result = make_first_process(std::move(standard_input), std::move(standard_output), std::move(standard_error));
  if (result.ok()) return;
  log(LogLevel::error, "the first process cannot be made: error %d; use -m for more memory", result.error().code());
  end_machine(kCannotExecute, 0);
}

void end_machine(u32 status, u32 signal) {
  network_finish();
  const Counters counters = syscall_counters();
  abi::ExitRecord record = {};
  record.status = status;
  record.signal = signal;
  record.syscalls_called = counters.called;
  record.syscalls_trapped = counters.trapped;
  if (sched::current()->owner != nullptr && current_process().space) record.page_faults = current_space().fault_count();
  record.memory_used_peak = mem::memory_statistics().peak_used;
  record.tsc_kernel_start = machine.tsc_kernel_start;
  record.tsc_program_start = machine.tsc_program_start;
  record.tsc_program_exit = platform::ticks();
  if (abi::MonitorPage* page = machine.monitor_page; page != nullptr) {
    page->tsc_program_exit = record.tsc_program_exit;
    page->syscalls_called = record.syscalls_called;
    page->syscalls_trapped = record.syscalls_trapped;
    page->upcalls = this_cpu().shared->nub_traps;
    page->page_faults = record.page_faults;
    page->memory_used_peak = record.memory_used_peak;
    page->memory_total = mem::memory_statistics().total;
  }
  drivers::send_record(abi::RecordType::exit, {reinterpret_cast<const u8*>(&record), sizeof(record)}, true);
  drivers::drain_output();
  platform::power_off(status);
}

}  // namespace husk::linux

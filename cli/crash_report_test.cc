// Crash records into text. Backtraces are compared with the truth: with what the C library's own unwinder says of this program's stack.
#include "cli/crash_report.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <fstream>

extern "C" const char __executable_start;  // the linker's: where this program was loaded

namespace husk::cli {
namespace {

std::vector<u8> read_host_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int sample_function() { return 42; }

u64 sample_offset() { return reinterpret_cast<u64>(&sample_function) - reinterpret_cast<u64>(&__executable_start); }

TEST(CrashReport, names_functions_from_the_file) {
  SymbolFile self(read_host_file("/proc/self/exe"));
  auto symbol = self.symbol_at(sample_offset() + 1);
  ASSERT_TRUE(symbol);
  EXPECT_NE(symbol->name.find("sample_function"), std::string::npos);
  EXPECT_EQ(symbol->address, sample_offset());
  EXPECT_FALSE(self.symbol_at(sample_offset() + 1, sample_offset() + 1));
}

TEST(CrashReport, kernel_panic) {
  struct {
    abi::CrashRecord crash;
    abi::CrashFrame frame;
    char text[7];
  } record{};
  record.crash.frame_count = 1;
  record.crash.message_size = 7;
  record.frame = {0xffff0000, sample_offset() + 1};
  memcpy(record.text, "why\x1b[m", 7);
  const u8* bytes = reinterpret_cast<const u8*>(&record);
  size_t size = offsetof(decltype(record), text) + 7;
  auto no_files = [](const std::string&) { return std::vector<u8>(); };
  std::string text = describe_crash({bytes, size}, no_files, read_host_file("/proc/self/exe"));
  for (const char* expected : {"the kernel panicked", "why?[m", "sample_function", "[kernel]"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << text;
  }
  for (size_t cut = 0; cut < size; ++cut) describe_crash({bytes, cut}, no_files, {});
  record.crash.frame_count = ~0u;
  record.crash.message_size = ~u64{0};
  record.crash.module_count = ~0u;
  for (u32 signal : {0u, 11u}) {
    record.crash.signal = signal;
    describe_crash({bytes, size}, no_files, {});
  }
}

// --- the stack of this program ----------------------------------------------------------------------------------------------

struct Snapshot {
  u64 registers[18];
  u64 stack_address;
  std::vector<u8> stack;
  std::vector<u64> truth;  // return addresses
};

[[gnu::noinline]] void take(Snapshot& out) {
  ucontext_t context;
  getcontext(&context);
  const auto* g = context.uc_mcontext.gregs;
  const int order[18] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
                         REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP, REG_EFL};
  for (int i = 0; i < 18; ++i) out.registers[i] = static_cast<u64>(g[order[i]]);
  out.stack_address = out.registers[7];
  pthread_attr_t attributes;
  void* low;
  size_t size;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &size);
  pthread_attr_destroy(&attributes);
  out.stack.resize(std::min(reinterpret_cast<u64>(low) + size - out.stack_address, 48 * kKiB));
  iovec local{out.stack.data(), out.stack.size()}, remote{reinterpret_cast<void*>(out.stack_address), out.stack.size()};
  if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != static_cast<ssize_t>(out.stack.size())) out.stack.clear();
  auto add = [](_Unwind_Context* frame, void* to) {
    static_cast<std::vector<u64>*>(to)->push_back(_Unwind_GetIP(frame));
    return _URC_NO_REASON;
  };
  _Unwind_Backtrace(add, &out.truth);
  out.truth.erase(out.truth.begin());  // in here
  while (!out.truth.empty() && out.truth.back() == 0) out.truth.pop_back();
}

[[gnu::noinline]] void leave_words_on_the_stack(int depth) {
  char filler[256];
  memset(filler, depth, sizeof(filler));
  asm volatile("" : : "r"(filler) : "memory");
  if (depth > 0) leave_words_on_the_stack(depth - 1);
  asm volatile("" ::: "memory");
}

[[gnu::noinline]] int compare_and_take(const void* a, const void* b, void* out) {
  auto* snapshot = static_cast<Snapshot*>(out);
  if (snapshot->truth.empty()) take(*snapshot);
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

std::vector<Module> own_modules() {
  std::vector<Module> modules;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    u64 start, end, offset;
    char protection[5], path[256] = "";
    if (sscanf(line.c_str(), "%lx-%lx %4s %lx %*s %*s %255s", &start, &end, protection, &offset, path) >= 4 && protection[2] == 'x') {
      modules.push_back({start, end, offset, path[0] == '/' ? path : ""});
    }
  }
  return modules;
}

void expect_truth(const Snapshot& snapshot) {
  ASSERT_FALSE(snapshot.stack.empty());
  Backtrace backtrace(own_modules(), {{snapshot.stack_address, snapshot.stack}}, read_host_file);
  backtrace.walk(snapshot.registers);
  ASSERT_GT(backtrace.frames().size(), snapshot.truth.size()) << backtrace.why_it_ended();
  EXPECT_NE(backtrace.frames()[0].name.find("take"), std::string::npos);
  for (size_t i = 0; i < snapshot.truth.size(); ++i) {
    EXPECT_EQ(backtrace.frames()[i + 1].address, snapshot.truth[i]) << i << " " << backtrace.frames()[i + 1].name;
  }
  EXPECT_EQ(backtrace.why_it_ended(), "");
}

TEST(Backtrace, through_the_c_library_and_back) {
  Snapshot snapshot;
  int values[] = {2, 1, 3};
  leave_words_on_the_stack(20);
  qsort_r(values, 3, sizeof(int), compare_and_take, &snapshot);
  expect_truth(snapshot);
}

Snapshot* handler_snapshot;
void handler(int) { take(*handler_snapshot); }

TEST(Backtrace, through_a_signal_handler) {
  Snapshot snapshot;
  handler_snapshot = &snapshot;
  signal(SIGUSR1, handler);
  leave_words_on_the_stack(20);
  raise(SIGUSR1);
  signal(SIGUSR1, SIG_DFL);
  expect_truth(snapshot);
}

TEST(Backtrace, second_thread) {
  Snapshot snapshot;
  pthread_t thread;
  auto run = [](void* out) -> void* {
    take(*static_cast<Snapshot*>(out));
    return nullptr;
  };
  pthread_create(&thread, nullptr, run, &snapshot);
  pthread_join(thread, nullptr);
  expect_truth(snapshot);
}

TEST(Backtrace, a_call_that_led_nowhere) {
  Snapshot snapshot;
  take(snapshot);
  // As if take() had called 0 instead of getcontext(): its return address lies where the stack pointer is then.
  snapshot.registers[7] -= 8;
  snapshot.stack_address -= 8;
  snapshot.stack.insert(snapshot.stack.begin(), 8, 0);
  memcpy(snapshot.stack.data(), &snapshot.registers[16], 8);  // getcontext's return address
  snapshot.truth.insert(snapshot.truth.begin(), snapshot.registers[16]);
  snapshot.registers[16] = 0;
  Backtrace backtrace(own_modules(), {{snapshot.stack_address, snapshot.stack}}, read_host_file);
  backtrace.walk(snapshot.registers);
  ASSERT_GT(backtrace.frames().size(), snapshot.truth.size()) << backtrace.why_it_ended();
  EXPECT_EQ(backtrace.frames()[0].address, 0u);
  EXPECT_EQ(backtrace.frames()[1].address, snapshot.truth[0]);
  EXPECT_EQ(backtrace.frames()[2].address, snapshot.truth[1]);
}

TEST(Backtrace, a_stack_that_is_cut_ends_it) {
  Snapshot snapshot;
  take(snapshot);
  for (size_t size : {size_t{0}, size_t{100}}) {
    Backtrace backtrace(own_modules(), {{snapshot.stack_address, std::span(snapshot.stack).first(size)}}, read_host_file);
    backtrace.walk(snapshot.registers);
    EXPECT_NE(backtrace.why_it_ended(), "") << size;
  }
}

TEST(Backtrace, frame_pointers_lead_through_code_without_tables_and_a_loop_of_them_ends) {
  struct {
    u64 words[8];
  } stack{};
  constexpr u64 kStack = 0x7000, kCode = 0x10000;
  std::vector<Module> modules = {{kCode, kCode + 0x1000, 0, ""}};
  stack.words[2] = kStack + 32, stack.words[3] = kCode + 0x10;
  stack.words[4] = kStack + 16, stack.words[5] = kCode + 0x20;  // leads back
  u64 registers[18] = {};
  registers[6] = kStack + 16, registers[7] = kStack, registers[16] = kCode;
  const u8* bytes = reinterpret_cast<const u8*>(&stack);
  Backtrace backtrace(modules, {{kStack, {bytes, sizeof(stack)}}}, read_host_file);
  backtrace.walk(registers);
  ASSERT_EQ(backtrace.frames().size(), 3u);
  EXPECT_EQ(backtrace.frames()[2].address, kCode + 0x20);
  EXPECT_NE(backtrace.why_it_ended(), "");
}

TEST(Backtrace, bytes_of_the_files_are_not_trusted) {
  Snapshot snapshot;
  take(snapshot);
  auto damaged = [](const std::string& path) {
    auto bytes = read_host_file(path);
    for (size_t i = 4096; i < bytes.size(); i += 97) bytes[i] ^= static_cast<u8>(i);
    return bytes;
  };
  Backtrace backtrace(own_modules(), {{snapshot.stack_address, snapshot.stack}}, damaged);
  backtrace.walk(snapshot.registers);
  EXPECT_LE(backtrace.frames().size(), 64u);
}

}  // namespace
}  // namespace husk::cli

// Runs rewritten programs on this Linux, without a kernel of ours: a debugger (this test) gives each new process a page
// at %gs:0 whose handler makes the real system call, and what the program prints must equal what the original prints.
//
// The handler keeps the contract of README.md. It may not use the program's red zone; calls after which the stack
// may be another one (clone, vfork, sigreturn) keep the return address in the page instead.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>

#include "abi/nub_abi.h"
#include "image/rewrite/rewrite.h"

namespace husk::image {
namespace {

asm(R"(
  .pushsection .text
  .globl husk_test_handler, husk_test_handler_end, husk_test_cpuid, husk_test_cpuid_end
husk_test_handler:
  incq %gs:16
  cmp $15, %eax
  je 2f
  cmp $56, %eax
  je 1f
  cmp $57, %eax
  je 1f
  cmp $58, %eax
  je 1f
  cmp $435, %eax
  je 1f
  lea -128(%rsp), %rsp
  push %rcx
  syscall
  pop %rcx
  lea 128(%rsp), %rsp
  jmp *%rcx
1:
  mov %rcx, %gs:8
  syscall
  mov %gs:8, %rcx
  jmp *%rcx
2:
  syscall
husk_test_handler_end:
husk_test_cpuid:
  mov %rdx, %gs:24
  incq %gs:32
  cpuid
  jmp *%gs:24
husk_test_cpuid_end:
  .popsection
)");
extern "C" const char husk_test_handler[], husk_test_handler_end[], husk_test_cpuid[], husk_test_cpuid_end[];

void step_one(pid_t child) {
  int status = 0;
  ASSERT_EQ(ptrace(PTRACE_SINGLESTEP, child, 0, 0), 0);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSTOPPED(status));
}

void poke(pid_t child, u64 address, const void* data, size_t size) {
  for (size_t i = 0; i < size; i += 8) {
    u64 word = 0;
    memcpy(&word, static_cast<const char*>(data) + i, std::min<size_t>(8, size - i));
    ASSERT_EQ(ptrace(PTRACE_POKEDATA, child, address + i, word), 0);
  }
}

using Answers = std::map<u64, u64>;  // abi::kAnsweredCalls' index → result

// The child stands at its first instruction after exec: make it map the page, fill the page, set gs base.
void give_handler(pid_t child, const Answers& answers) {
  user_regs_struct saved = {}, registers = {};
  ASSERT_EQ(ptrace(PTRACE_GETREGS, child, 0, &saved), 0);
  errno = 0;
  long original = ptrace(PTRACE_PEEKDATA, child, saved.rip, 0);
  poke(child, saved.rip, "\x0f\x05", 2);
  long patched = ptrace(PTRACE_PEEKDATA, child, saved.rip, 0);
  patched = (original & ~0xffffL) | (patched & 0xffff);
  poke(child, saved.rip, &patched, 8);
  registers = saved;
  registers.rax = SYS_mmap;
  registers.orig_rax = ~0ull;
  registers.rdi = 0;
  registers.rsi = 4096;
  registers.rdx = PROT_READ | PROT_WRITE | PROT_EXEC;
  registers.r10 = MAP_PRIVATE | MAP_ANONYMOUS;
  registers.r8 = ~0ull;
  registers.r9 = 0;
  ASSERT_EQ(ptrace(PTRACE_SETREGS, child, 0, &registers), 0);
  step_one(child);
  ASSERT_EQ(ptrace(PTRACE_GETREGS, child, 0, &registers), 0);
  u64 page = registers.rax;
  ASSERT_LT(page, u64{1} << 47);
  poke(child, saved.rip, &original, 8);
  u64 handler = page + 512, cpuid = page + 1024;
  poke(child, page, &handler, 8);
  poke(child, page + 0x78, &cpuid, 8);
  poke(child, cpuid, husk_test_cpuid, static_cast<size_t>(husk_test_cpuid_end - husk_test_cpuid));
  poke(child, handler, husk_test_handler, static_cast<size_t>(husk_test_handler_end - husk_test_handler));
  for (auto [index, result] : answers) {
    u64 answer = result + 1;
    poke(child, page + HUSK_VCPU_ANSWERS + index * sizeof(u64), &answer, sizeof(answer));
  }
  saved.gs_base = page;
  ASSERT_EQ(ptrace(PTRACE_SETREGS, child, 0, &saved), 0);
}

struct Outcome {
  std::string output;
  int status = -1;
};

// Runs a command; with_handler: its first process gets the page. `environment_` as main's.
Outcome run(const std::vector<std::string>& command, bool with_handler, std::vector<std::string> environment = {}, const Answers& answers = {}) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  std::vector<char*> arguments, variables;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  for (const auto& word : environment) variables.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  variables.push_back(nullptr);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    dup2(open("/dev/null", O_RDONLY), 0);
    close(ends[0]);
    if (with_handler) ptrace(PTRACE_TRACEME, 0, 0, 0);
    execve(arguments[0], arguments.data(), variables.data());
    _exit(127);
  }
  close(ends[1]);
  Outcome outcome;
  if (with_handler) {
    waitpid(child, &outcome.status, 0);
    if (!WIFSTOPPED(outcome.status)) return outcome;
    give_handler(child, answers);
    ptrace(PTRACE_DETACH, child, 0, 0);
  }
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) outcome.output.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  waitpid(child, &outcome.status, 0);
  return outcome;
}

class NativeTest : public testing::Test {
 protected:
  void SetUp() override {
    user_regs_struct registers;
    pid_t child = fork();
    if (child == 0) {
      ptrace(PTRACE_TRACEME, 0, 0, 0);
      raise(SIGSTOP);
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    bool usable = ptrace(PTRACE_GETREGS, child, 0, &registers) == 0;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (!usable) GTEST_SKIP() << "ptrace is not allowed here";
  }

  // Writes the rewritten form of a file into the directory for them, under its own name.
  std::string rewritten(const std::string& path) {
    auto file = MappedFile::open(path);
    auto result = rewrite_system_calls(ElfView::parse(file.bytes(), path));
    std::string to = changed_.path() + "/" + path.substr(path.rfind('/') + 1);
    Bytes bytes = result.bytes.empty() ? file.bytes() : Bytes(result.bytes);
    // The writer is another process, so that no descriptor for writing is inherited by a program being started.
    pid_t writer = fork();
    if (writer == 0) {
      Descriptor out(open(to.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0755));
      write_all(out.get(), bytes, 0, to);
      _exit(0);
    }
    waitpid(writer, nullptr, 0);
    sites_ += result.report.rewritten.size();
    return to;
  }

  void expect_same(std::vector<std::string> original, std::vector<std::string> changed, std::vector<std::string> environment = {}) {
    Outcome expected = run(original, false), actual = run(changed, true, environment);
    EXPECT_EQ(expected.output, actual.output);
    EXPECT_EQ(expected.status, actual.status);
    EXPECT_FALSE(expected.output.empty());
  }

  std::string compile(const std::string& name, const std::string& source, const std::string& flags) {
    std::string base = directory_.path() + "/" + name;
    FILE* out = fopen((base + ".cc").c_str(), "w");
    fputs(source.c_str(), out);
    fclose(out);
    std::string command = "c++ -O2 -o " + base + ".original " + base + ".cc " + flags;
    EXPECT_EQ(system(command.c_str()), 0) << command;
    return base + ".original";
  }

  TemporaryDirectory directory_, changed_;  // originals; rewritten files
  size_t sites_ = 0;
};

constexpr char kProgram[] = R"(
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>
#include <unistd.h>
#include <sys/wait.h>
volatile sig_atomic_t signals;
void on_signal(int) { ++signals; }
int main(int, char**) {
  std::vector<std::thread> threads;
  long sums[4] = {};
  for (int i = 0; i < 4; ++i) threads.emplace_back([&, i] { for (int j = 0; j < 1000; ++j) sums[i] += j; });
  for (auto& t : threads) t.join();
  printf("%ld\n", sums[0] + sums[1] + sums[2] + sums[3]);
  try { throw std::runtime_error("thrown"); } catch (const std::exception& e) { puts(e.what()); }
  signal(SIGALRM, on_signal);
  for (int i = 0; i < 100; ++i) raise(SIGALRM);
  printf("%d signals\n", int(signals));
  signal(SIGUSR1, on_signal);
  int ends[2];
  if (pipe(ends)) return 1;
  pid_t self = getpid(), child = fork();
  if (child == 0) {
    usleep(50000);
    kill(self, SIGUSR1);  // read() below is restarted
    usleep(50000);
    write(ends[1], "late", 4);
    _exit(7);
  }
  char text[8] = {};
  ssize_t n = read(ends[0], text, 4);
  int status;
  waitpid(child, &status, 0);
  printf("%zd %s %d %d\n", n, text, WEXITSTATUS(status), int(signals));
  FILE* p = popen("echo from a child", "r");
  fgets(text, 8, p);
  pclose(p);
  puts(text);
  return 3;
}
)";

TEST_F(NativeTest, static_program_with_threads_signals_and_children) {
  std::string original = compile("static", kProgram, "-static -pthread");
  expect_same({original}, {rewritten(original)});
  EXPECT_GT(sites_, 100u);
}

TEST_F(NativeTest, static_pie_program) {
  std::string original = compile("pie", kProgram, "-static-pie -pthread");
  expect_same({original}, {rewritten(original)});
}

TEST_F(NativeTest, dynamic_program_with_rewritten_libraries) {
  std::string original = compile("dynamic", kProgram, "-pthread");
  std::string loader = rewritten("/lib64/ld-linux-x86-64.so.2");
  for (const char* name : {"libc.so.6", "libm.so.6", "libgcc_s.so.1"}) {
    rewritten(std::string("/lib/x86_64-linux-gnu/") + name);
  }
  rewritten("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
  expect_same({original}, {loader, "--library-path", changed_.path(), rewritten(original)});
  EXPECT_GT(sites_, 400u);
}

TEST_F(NativeTest, known_answers_are_taken_and_others_asked_for) {
  std::string original = compile("ids", R"(
#include <cstdio>
#include <unistd.h>
int main() { printf("%u %u %u %u %d\n", getuid(), geteuid(), getgid(), getegid(), getpid() > 0); }
)",
                                 "-static");
  Outcome outcome = run({rewritten(original)}, true, {}, {{2, 1234}, {5, ~u32{0}}});
  EXPECT_EQ(outcome.output, "1234 " + std::to_string(geteuid()) + " " + std::to_string(getgid()) + " 4294967295 1\n");
}

TEST_F(NativeTest, busybox_applets) {
  if (access("/bin/busybox", X_OK) != 0) GTEST_SKIP() << "busybox is not installed";
  std::string changed = rewritten("/bin/busybox");
  std::vector<std::vector<std::string>> commands = {{"sha256sum", "/bin/busybox"},
                                                    {"ls", "-l", "/usr/bin/env"},
                                                    {"sh", "-c", "for i in 1 2 3; do echo $i; done; (exit 4) || exit 5"},
                                                    {"tar", "cf", "-", "-C", "/etc", "passwd"},
                                                    {"sort", "/etc/group"}};
  for (auto command : commands) {
    auto other = command;
    command.insert(command.begin(), "/bin/busybox");
    other.insert(other.begin(), changed);
    expect_same(command, other);
  }
}

}  // namespace
}  // namespace husk::image

// flags: -pthread -O0
// What a program must not be able to do in its machine: tries each from ring 3 and prints "NAME: outcome", one a line.
// tests/e2e/cases_security.py knows the outcomes that are right. `probe addresses` prints where things are instead.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

static sigjmp_buf jump;
static char alternate[65536];

static void on_signal(int signal, siginfo_t*, void*) { siglongjmp(jump, signal); }

static const char* name_of(int signal) {
  return signal == SIGSEGV ? "SIGSEGV" : signal == SIGBUS ? "SIGBUS" : signal == SIGILL ? "SIGILL" : signal == SIGTRAP ? "SIGTRAP" : "signal";
}

template <typename F>
static void attempt(const char* name, F action) {
  int signal = sigsetjmp(jump, 1);
  if (signal != 0) {
    printf("%s: %s\n", name, name_of(signal));
    return;
  }
  long result = action();
  printf("%s: done %ld\n", name, result);
}

static const unsigned char kReturn[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov $42,%eax; ret
static const unsigned char kReadOnlyCode[64] = {0xb8, 42, 0, 0, 0, 0xc3};

static long call(const void* code) { return reinterpret_cast<int (*)()>(const_cast<void*>(code))(); }

static uint64_t kernel_entry() {
  uint64_t address;
  asm volatile("mov %%gs:0, %0" : "=r"(address));
  return address;
}

static int deep(int n) {
  volatile char block[4096];
  block[0] = static_cast<char>(n);
  return n <= 0 ? 0 : deep(n - 1) + block[0];
}

static void* overflow(void*) {
  stack_t stack = {};
  stack.ss_sp = malloc(65536);
  stack.ss_size = 65536;
  sigaltstack(&stack, nullptr);
  attempt("thread stack overflow", [] { return static_cast<long>(deep(1 << 20)); });
  return nullptr;
}

static int addresses() {
  unsigned char random[8];
  getrandom(random, 8, 0);
  uint64_t number;
  memcpy(&number, random, 8);
  uint64_t at_random;
  memcpy(&at_random, reinterpret_cast<void*>(getauxval(AT_RANDOM)), 8);
  int local;
  printf("program %#lx\nlibrary %#lx\nstack %#lx\nmmap %#lx\nheap %#lx\nkernel %#lx\nvdso %#lx\ngetrandom %#lx\nat_random %#lx\n",
         reinterpret_cast<uint64_t>(&addresses), reinterpret_cast<uint64_t>(&getauxval), reinterpret_cast<uint64_t>(&local),
         reinterpret_cast<uint64_t>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), reinterpret_cast<uint64_t>(sbrk(0)),
         kernel_entry(), getauxval(AT_SYSINFO_EHDR), number, at_random);
  return 0;
}

#define TRY_ASM(name, ...)     \
  attempt(name, [] {           \
    asm volatile(__VA_ARGS__); \
    return 0L;                 \
  })

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "addresses")) return addresses();
  setvbuf(stdout, nullptr, _IOLBF, 0);
  stack_t stack = {};
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int s : {SIGSEGV, SIGBUS, SIGILL, SIGTRAP}) sigaction(s, &action, nullptr);

  attempt("map writable and executable",
          [] { return mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -errno : 1L; });
  attempt("make written memory executable", [] {
    void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(p, kReturn, sizeof kReturn);
    return mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0 ? call(p) : -errno;
  });
  attempt("execute written file", [] {
    int fd = memfd_create("code", 0);
    if (write(fd, kReturn, sizeof kReturn) < 0) return -1000L;
    void* p = mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    return p == MAP_FAILED ? -errno : call(p);
  });
  attempt("execute stack", [] {
    unsigned char code[16];
    memcpy(code, kReturn, sizeof kReturn);
    return call(code);
  });
  attempt("execute heap", [] {
    void* p = malloc(64);
    memcpy(p, kReturn, sizeof kReturn);
    return call(p);
  });
  attempt("execute read-only data", [] { return call(kReadOnlyCode); });
  attempt("write text", [] {
    *reinterpret_cast<volatile char*>(reinterpret_cast<uint64_t>(&addresses)) = 1;
    return 1L;
  });
  attempt("make text writable and write", [] {
    uint64_t page = reinterpret_cast<uint64_t>(&addresses) & ~4095ul;
    if (mprotect(reinterpret_cast<void*>(page), 4096, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) return -static_cast<long>(errno);
    *reinterpret_cast<volatile char*>(page) = 1;
    return 1L;
  });
  attempt("read address 0", [] { return static_cast<long>(*reinterpret_cast<volatile char*>(0)); });
  attempt("read address 0xffff", [] { return static_cast<long>(*reinterpret_cast<volatile char*>(0xffff)); });
  attempt("map address 0",
          [] { return mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -errno : 1L; });
  attempt("map address 0x1000", [] {
    return mmap(reinterpret_cast<void*>(0x1000), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -errno
                                                                                                                                             : 1L;
  });
  attempt("map kernel address", [] {
    return mmap(reinterpret_cast<void*>(kernel_entry() & ~4095ul), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                   MAP_FAILED
               ? -errno
               : 1L;
  });
  attempt("write kernel text", [] {
    *reinterpret_cast<volatile char*>(kernel_entry()) = 0x90;
    return 1L;
  });
  attempt("read nub", [] { return static_cast<long>(*reinterpret_cast<volatile char*>(0xffffffff80000000)); });
  attempt("read nub data", [] { return static_cast<long>(*reinterpret_cast<volatile char*>(0xffffffff80010000)); });
  attempt("call nub", [] { return call(reinterpret_cast<void*>(0xffffffff80000000)); });
  attempt("nub call from the program", [] {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(~0ul), "D"(1) : "rcx", "r11", "memory");
    return result;
  });
  pthread_t thread;
  pthread_create(&thread, nullptr, overflow, nullptr);
  pthread_join(thread, nullptr);
  attempt("main stack overflow", [] { return static_cast<long>(deep(1 << 20)); });

  TRY_ASM("cli", "cli");
  TRY_ASM("hlt", "hlt");
  TRY_ASM("read cr3", "mov %%cr3, %%rax" ::: "rax");
  TRY_ASM("write cr3", "mov %%rax, %%cr3" ::"a"(0));
  TRY_ASM("write cr0", "mov %%rax, %%cr0" ::"a"(0));
  TRY_ASM("rdmsr", "rdmsr" ::"c"(0xc0000080) : "rax", "rdx");
  TRY_ASM("wrmsr", "wrmsr" ::"c"(0xc0000082), "a"(0), "d"(0));
  TRY_ASM("lgdt", "lgdt (%%rsp)" ::);
  TRY_ASM("lidt", "lidt (%%rsp)" ::);
  TRY_ASM("ltr", "ltr %%ax" ::"a"(0x38));
  TRY_ASM("invlpg", "invlpg (%%rsp)" ::);
  TRY_ASM("wbinvd", "wbinvd");
  TRY_ASM("out 0x64", "outb %%al, $0x64" ::"a"(0xfe));
  TRY_ASM("in 0xcf8", "inl %%dx, %%eax" ::"d"(0x1cf8) : "rax");
  TRY_ASM("swapgs", "swapgs");
  TRY_ASM("sysretq", "sysretq");
  TRY_ASM("int 0x20", "int $0x20");
  TRY_ASM("int 0x80", "int $0x80" ::"a"(20));
  TRY_ASM("smsw", "smsw %%ax" ::: "rax");
  TRY_ASM("sgdt", "sgdt -64(%%rsp)" ::: "memory");
  attempt("vmcall", [] {
    long result = 0;
    asm volatile("vmcall" : "+a"(result) : "b"(0), "c"(0), "d"(0), "S"(0) : "memory");
    return result;
  });
  puts("end: still running");
  return 0;
}

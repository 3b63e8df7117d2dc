// mmap, mprotect, munmap, mremap, madvise, brk: contents, errors, neighbours.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf jump;
static int last_code;
static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)context;
  last_code = info->si_code;
  siglongjmp(jump, signal);
}
static const char* try_write(volatile char* p) {
  int s = sigsetjmp(jump, 1);
  if (s == 0) {
    *p = 1;
    return "written";
  }
  return s == SIGSEGV ? (last_code == SEGV_MAPERR ? "SEGV_MAPERR" : "SEGV_ACCERR") : "SIGBUS";
}
static const char* try_read(volatile char* p) {
  int s = sigsetjmp(jump, 1);
  if (s == 0) {
    (void)*p;
    return "read";
  }
  return s == SIGSEGV ? (last_code == SEGV_MAPERR ? "SEGV_MAPERR" : "SEGV_ACCERR") : "SIGBUS";
}
#define SHOW(e) do { errno = 0; long show_ = (long)(e); printf("%s: %s %d\n", #e, show_ == -1 ? "-1" : "ok", errno); } while (0)

int main(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, 0);
  sigaction(SIGBUS, &action, 0);

  char* p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 1 << 20; i += 4096) if (p[i] != 0) puts("not zero");
  memset(p, 5, 1 << 20);
  SHOW(mprotect(p + 4096, 4096, PROT_READ));
  puts(try_write(p + 4096));
  puts(try_write(p + 8192));
  SHOW(mprotect(p + 4096, 4096, PROT_NONE));
  puts(try_read(p + 4096));
  SHOW(mprotect(p + 4096, 4096, PROT_READ | PROT_WRITE));
  printf("%d\n", p[4096]);
  SHOW(munmap(p + 16384, 4096));
  puts(try_read(p + 16384));
  printf("%d %d\n", p[16383], p[20480]);
  SHOW(madvise(p, 4096, MADV_DONTNEED));
  printf("%d\n", p[0]);
  puts(try_read((char*)16));
  puts(try_write((char*)0));
  SHOW(mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
  SHOW(munmap((void*)1, 4096));
  SHOW(mprotect((void*)0x7000000000, 4096, PROT_READ));
  SHOW((long)mmap(p, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));

  // Growing a mapping in place or by moving it.
  char* a = mmap(0, 3 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(a, 9, 3 << 12);
  char* b = mremap(a, 3 << 12, 64 << 20, MREMAP_MAYMOVE);
  printf("%d %d %d\n", b != MAP_FAILED, b[0], b[(3 << 12) + 5]);
  b = mremap(b, 64 << 20, 4096, 0);
  printf("%d\n", b[4095]);
  puts(try_read(b + 4096));

  // A large sparse reservation costs nothing.
  char* r = mmap(0, 1ul << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  printf("%d\n", r != MAP_FAILED);
  SHOW(mprotect(r + (1ul << 35), 1 << 20, PROT_READ | PROT_WRITE));
  r[1ul << 35] = 1;
  SHOW(munmap(r, 1ul << 36));

  // Files: private changes stay private, shared ones are seen, beyond the end is SIGBUS.
  int fd = open("/tmp/memory-test", O_RDWR | O_CREAT | O_TRUNC, 0600);
  char block[8192];
  memset(block, 'x', sizeof block);
  write(fd, block, 6000);
  char* s = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* q = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  printf("%c %d\n", s[5999], s[6001]);
  q[0] = 'q';
  s[1] = 's';
  pread(fd, block, 4, 0);
  printf("%.4s %.4s %c\n", block, s, q[1]);
  puts(try_read(s + 8192));
  pwrite(fd, "new", 3, 4096);
  printf("%.3s %.3s\n", s + 4096, q + 4096);
  SHOW(ftruncate(fd, 12288));
  printf("%d\n", s[8192]);
  SHOW(msync(s, 12288, MS_SYNC));
  close(fd);
  unlink("/tmp/memory-test");
  printf("%c\n", s[1]);

  void* start = sbrk(0);
  SHOW(brk((char*)start + (1 << 20)));
  memset(start, 1, 1 << 20);
  SHOW(brk(start));
  unsigned char bits[4];
  char* m = mmap(0, 4 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  SHOW(mincore(m, 4 << 12, bits));
  int fds = memfd_create("test", 0);
  SHOW(ftruncate(fds, 1 << 21));
  char* v1 = mmap(0, 1 << 21, PROT_READ | PROT_WRITE, MAP_SHARED, fds, 0);
  char* v2 = mmap(0, 1 << 21, PROT_READ | PROT_WRITE, MAP_SHARED, fds, 0);
  v1[100000] = 'v';
  printf("%c\n", v2[100000]);
  SHOW(fallocate(fds, 3, 98304, 4096));
  printf("%d\n", v2[100000]);
  // Every byte of a large area, in a pattern.
  uint64_t* big = mmap(0, 48 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < (48u << 20) / 8; i += 64) big[i] = i * 2654435761u;
  for (uint64_t i = 0; i < (48u << 20) / 8; i += 64) sum ^= big[i];
  printf("%lx\n", sum);
  return 0;
}

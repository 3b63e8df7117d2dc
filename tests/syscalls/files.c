// Files and directories in /tmp: create, read, write, seek, rename, link, truncate, stat, getdents, errors.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); printf("%s: %ld %d\n", #e, show_, errno); } while (0)
static int by_name(const struct dirent** a, const struct dirent** b) { return strcmp((*a)->d_name, (*b)->d_name); }
static void list(const char* path) {
  struct dirent** names;
  int n = scandir(path, &names, 0, by_name);
  printf("%d:", n);
  for (int i = 0; i < n; ++i) printf(" %s/%d", names[i]->d_name, names[i]->d_type), free(names[i]);
  if (n >= 0) free(names);
  puts("");
}
int main(void) {
  char dir[] = "/tmp/husk-files-XXXXXX";
  if (!mkdtemp(dir) || chdir(dir)) return 1;
  umask(022);
  int fd = open("a", O_RDWR | O_CREAT | O_EXCL, 0666);
  SHOW(fd < 0);
  SHOW(write(fd, "hello world", 11));
  SHOW(lseek(fd, 6, SEEK_SET));
  char b[64] = {0};
  SHOW(read(fd, b, 64));
  puts(b);
  SHOW(lseek(fd, 1 << 20, SEEK_SET));
  SHOW(write(fd, "end", 3));
  struct stat s;
  fstat(fd, &s);
  printf("%ld %o %ld %d\n", s.st_size, s.st_mode, (long)s.st_nlink, s.st_blksize > 0);
  SHOW(pread(fd, b, 8, 1000));
  SHOW(ftruncate(fd, 5));
  SHOW(lseek(fd, 0, SEEK_END));
  SHOW(lseek(fd, -10, SEEK_CUR));
  struct iovec v[3] = {{"one", 3}, {"", 0}, {"two", 3}};
  SHOW(pwritev(fd, v, 3, 2));
  memset(b, 0, sizeof b);
  SHOW(pread(fd, b, 64, 0));
  puts(b);
  int ap = open("a", O_WRONLY | O_APPEND);
  SHOW(write(ap, "!", 1));
  SHOW(read(ap, b, 1));
  SHOW(link("a", "b"));
  SHOW(symlink("a", "c"));
  SHOW(symlink("loop", "loop"));
  SHOW(open("loop", O_RDONLY));
  SHOW(open("c", O_RDONLY | O_NOFOLLOW));
  SHOW(open("missing", O_RDONLY));
  SHOW(open("a/b", O_RDONLY));
  SHOW(open("a", O_RDONLY | O_DIRECTORY));
  SHOW(open(".", O_WRONLY));
  SHOW(open("a", O_CREAT | O_EXCL, 0600));
  SHOW(mkdir("d", 0777));
  SHOW(mkdir("d", 0777));
  SHOW(mkdir("d/e/f", 0777));
  SHOW(mkdir("d/e", 0700));
  SHOW(rmdir("d"));
  SHOW(unlink("d"));
  SHOW(rename("a", "d/moved"));
  SHOW(stat("a", &s));
  SHOW(stat("b", &s));
  printf("%ld\n", (long)s.st_nlink);
  SHOW(rename("d", "d/e/x"));
  SHOW(renameat2(AT_FDCWD, "b", AT_FDCWD, "d/moved", RENAME_NOREPLACE));
  SHOW(lstat("c", &s));
  printf("%ld %o\n", s.st_size, s.st_mode & S_IFMT);
  memset(b, 0, sizeof b);
  SHOW(readlink("c", b, sizeof b));
  SHOW(readlink("b", b, sizeof b));
  list(".");
  list("d");
  SHOW(access("b", R_OK | W_OK));
  SHOW(access("b", X_OK) == 0);
  SHOW(chmod("b", 0755));
  SHOW(access("b", X_OK));
  struct timespec times[2] = {{1000, 5}, {2000, 7}};
  SHOW(utimensat(AT_FDCWD, "b", times, 0));
  stat("b", &s);
  printf("%ld %ld %ld\n", s.st_atim.tv_sec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  struct statx x;
  SHOW(statx(AT_FDCWD, "b", 0, STATX_BASIC_STATS, &x));
  printf("%llu %o\n", x.stx_size, x.stx_mode);
  int d = open("d", O_RDONLY | O_DIRECTORY);
  int in = openat(d, "e/new", O_CREAT | O_RDWR, 0644);
  SHOW(in < 0);
  SHOW(sendfile(in, fd, &(off_t){0}, 5));
  SHOW(lseek(in, 0, SEEK_CUR));
  SHOW(fchdir(d));
  char cwd[256], *end;
  getcwd(cwd, sizeof cwd);
  end = strrchr(cwd, '/');
  puts(end);
  SHOW(unlink("e/new"));
  SHOW(write(in, "still there", 11));
  fstat(in, &s);
  printf("%ld %ld\n", (long)s.st_nlink, s.st_size);
  for (int i = 0; i < 300; ++i) {
    char name[32];
    sprintf(name, "many-%03d", i);
    close(open(name, O_CREAT | O_WRONLY, 0600));
  }
  DIR* all = opendir(".");
  int seen = 0;
  for (struct dirent* e; (e = readdir(all));) {
    if (strncmp(e->d_name, "many-", 5)) continue;
    ++seen;
    unlink(e->d_name);
  }
  closedir(all);
  printf("%d\n", seen);
  list(".");
  SHOW(fcntl(fd, F_GETFL) & O_ACCMODE);
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
  printf("%d %d\n", copy, fcntl(copy, F_GETFD));
  SHOW(dup2(fd, 50));
  SHOW(lseek(50, 3, SEEK_SET));
  SHOW(lseek(fd, 0, SEEK_CUR));
  SHOW(close(50));
  SHOW(close(50));
  SHOW(flock(fd, LOCK_EX));
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  SHOW(fcntl(fd, F_SETLK, &lock));
  struct statfs fs;
  SHOW(statfs("/tmp", &fs));
  SHOW(read(fd, (void*)8, 4));
  SHOW(write(1000, "x", 1));
  SHOW(open((char*)8, O_RDONLY));
  SHOW(fallocate(fd, 0, 0, 100));
  SHOW(syncfs(fd));
  SHOW(fdatasync(fd));
  int temporary = open("/tmp", O_TMPFILE | O_RDWR, 0600);
  SHOW(temporary < 0);
  SHOW(chdir("/"));
  char long_name[300];
  memset(long_name, 'n', sizeof long_name - 1);
  long_name[299] = 0;
  SHOW(open(long_name, O_RDONLY));
  SHOW(truncate("/dev/null", 0) != 0);
  int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY), full = open("/dev/full", O_WRONLY);
  SHOW(write(null, "abc", 3));
  SHOW(read(null, b, 3));
  memset(b, 1, 8);
  SHOW(read(zero, b, 8));
  printf("%d\n", b[7]);
  SHOW(write(full, "x", 1));
  int random = open("/dev/urandom", O_RDONLY);
  SHOW(read(random, b, 16));
  char command[400];
  unlinkat(AT_FDCWD, dir, 0);
  sprintf(command, "%s/d/e", dir), rmdir(command);
  sprintf(command, "%s/d/moved", dir), unlink(command);
  sprintf(command, "%s/d", dir), rmdir(command);
  const char* rest[] = {"b", "c", "loop"};
  for (int i = 0; i < 3; ++i) sprintf(command, "%s/%s", dir, rest[i]), unlink(command);
  SHOW(rmdir(dir));
  return 0;
}

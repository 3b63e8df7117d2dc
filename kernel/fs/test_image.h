// EROFS images for tests, made by mkfs.erofs from a directory.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <span>
#include <string>

#include "base/types.h"

namespace husk::test {

inline bool have_mkfs() { return system("command -v mkfs.erofs >/dev/null") == 0; }

class ErofsImage {
 public:
  ErofsImage(const std::string& directory, const std::string& options) {
    char name[] = "/dev/shm/husk-erofs-XXXXXX";
    int fd = mkstemp(name);
    std::string command = "mkfs.erofs -x-1 " + options + " " + name + " " + directory + " >/dev/null 2>&1";
    if (fd < 0 || system(command.c_str()) != 0) abort();
    struct stat info;
    fstat(fd, &info);
    size_ = static_cast<size_t>(info.st_size);
    data_ = static_cast<u8*>(mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
    unlink(name);
  }
  ~ErofsImage() { munmap(data_, size_); }
  std::span<const u8> bytes() const { return {data_, size_}; }
  PhysAddr physical() const { return {256 * kGiB}; }

 private:
  u8* data_;
  size_t size_;
};

// Some directories, files of various sizes and links, named as the tests expect: a to e, and more at depth.
inline void fill_directory(const std::string& path, std::mt19937& random, int depth) {
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    std::string at = path + "/" + name;
    switch (random() % (depth > 0 ? 5 : 4)) {
      case 0: break;
      case 1: std::ofstream(at) << std::string(random() % 9000, static_cast<char>('A' + random() % 26)); break;
      case 2: std::ofstream(at) << std::string(random() % 2 == 0 ? 8192 : 60, 'z'); break;
      case 3: std::filesystem::create_symlink(random() % 2 == 0 ? "a" : "./b/c", at); break;
      default: std::filesystem::create_directory(at); fill_directory(at, random, depth - 1);
    }
  }
}

}  // namespace husk::test

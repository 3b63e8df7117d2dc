// See cli/program.h.
#include "cli/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "abi/image_format.h"
#include "cli/failure.h"
#include "host/file_descriptor.h"

namespace husk::cli {
namespace {

bool is_executable_file(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && access(path.c_str(), X_OK) == 0;
}

std::string search_path(const std::string& word) {
  if (word.find('/') != std::string::npos) return word;
  // An image in this directory may be named without "./": it cannot be meant for the shell's search.
  const char* variable = getenv("PATH");
  std::string rest = variable == nullptr ? "/usr/local/bin:/usr/bin:/bin" : variable;
  for (size_t start = 0; start <= rest.size();) {
    size_t end = std::min(rest.find(':', start), rest.size());
    std::string directory = end == start ? "." : rest.substr(start, end - start);
    std::string candidate = directory + "/" + word;
    if (is_executable_file(candidate)) return candidate;
    start = end + 1;
  }
  if (access(word.c_str(), R_OK) == 0 && word.ends_with(".husk")) return word;
  throw Failure(word + ": not found in PATH; check the name, or give a path", kStatusNotFound);
}

std::string absolute(const std::string& path) {
  // Links stay: what a program is called may decide what it does (busybox). But one program has one name: its image is the same, however it was said.
  return std::filesystem::absolute(path).lexically_normal();
}

[[noreturn]] void cannot_run(const std::string& path, const std::string& why) { throw Failure(path + ": " + why, kStatusCannotRun); }

void check_program(const std::string& path, const struct stat& status, int fd) {
  Elf64_Ehdr header{};
  ssize_t size = pread(fd, &header, sizeof(header), 0);
  const char* bytes = reinterpret_cast<const char*>(&header);
  bool script = size >= 2 && bytes[0] == '#' && bytes[1] == '!';  // the image builder adds its interpreter
  if (script) {
    if ((status.st_mode & 0111) == 0) cannot_run(path, "is not executable; chmod +x it");
    return;
  }
  if (size < 4 || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) cannot_run(path, "is neither an ELF program nor a husk image; check the file");
  if (size < static_cast<ssize_t>(sizeof(header))) cannot_run(path, "the ELF file is truncated; get it again");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) {
    cannot_run(path, "is for another architecture (machine " + std::to_string(header.e_machine) + "); husk runs x86-64 programs");
  }
  if (header.e_type == ET_REL || header.e_type == ET_CORE || header.e_entry == 0) {
    cannot_run(path, "is a library, an object file or a core dump; name a program");
  }
  if (access(path.c_str(), X_OK) != 0 || (status.st_mode & 0111) == 0) cannot_run(path, "is not executable; chmod +x it");
}

}  // namespace

Target find_target(const std::string& word) {
  if (word.empty()) throw Failure("'': not found; name a program or an image", kStatusNotFound);
  std::string path = search_path(word);
  host::FileDescriptor file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  int error = errno;
  struct stat status {};
  if (!file) {
    bool missing = error == ENOENT || error == ENOTDIR;
    throw Failure(word + ": " + strerror(error) + "; check the path" + (missing ? "" : " and its permissions"),
                  missing ? kStatusNotFound : kStatusCannotRun);
  }
  fstat(file.get(), &status);
  if (S_ISDIR(status.st_mode)) cannot_run(word, "is a directory; name a program or an image");
  if (!S_ISREG(status.st_mode)) cannot_run(word, "is not a regular file; name a program or an image");
  u64 magic = 0;
  ssize_t size = pread(file.get(), &magic, sizeof(magic), abi::kImageHeaderOffset);
  if (size == sizeof(magic) && magic == abi::kImageMagic) return {path, true};
  if (word.ends_with(".husk")) cannot_run(word, "is not a husk image, or a damaged one; build it again with: husk build PROGRAM -o " + word);
  check_program(path, status, file.get());
  return {absolute(path), false};
}

}  // namespace husk::cli

// See fd_table.h.
#include "kernel/linux/fd_table.h"

#include <algorithm>

namespace husk::linux {

const FdTable::Slot* FdTable::find(int fd) const {
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size() || !slots_[fd].file) return nullptr;
  return &slots_[fd];
}

Result<void> FdTable::grow(size_t size) {
  while (slots_.size() < size) TRY(slots_.push_back({}));
  return {};
}

Result<Ref<vfs::File>> FdTable::get(int fd) const {
  const Slot* slot = find(fd);
  if (slot == nullptr) return Error(EBADF);
  return slot->file;
}

Result<int> FdTable::install(Ref<vfs::File> file, bool close_on_exec, int minimum) {
  if (minimum < 0 || static_cast<u64>(minimum) >= limit) return Error(minimum == 0 ? EMFILE : EINVAL);
  size_t fd = std::max(static_cast<size_t>(minimum), lowest_free_);
  while (fd < slots_.size() && slots_[fd].file) ++fd;
  if (fd >= limit) return Error(EMFILE);
  TRY(grow(fd + 1));
  slots_[fd].file = std::move(file);
  slots_[fd].close_on_exec = close_on_exec;
  if (static_cast<size_t>(minimum) <= lowest_free_) lowest_free_ = fd + 1;
  return static_cast<int>(fd);
}

Result<int> FdTable::install_at(int fd, Ref<vfs::File> file, bool close_on_exec) {
  if (fd < 0 || static_cast<u64>(fd) >= limit) return Error(EBADF);
  TRY(grow(static_cast<size_t>(fd) + 1));
  std::swap(slots_[fd].file, file);  // the old one goes when `file` does, with the table consistent
  slots_[fd].close_on_exec = close_on_exec;
  return fd;
}

Result<Ref<vfs::File>> FdTable::close(int fd) {
  if (find(fd) == nullptr) return Error(EBADF);
  lowest_free_ = std::min(lowest_free_, static_cast<size_t>(fd));
  return Ref<vfs::File>(std::move(slots_[fd].file));
}

void FdTable::close_range(u32 first, u32 last) {
  for (size_t fd = first; fd < slots_.size() && fd <= last; ++fd) (void)close(static_cast<int>(fd));
}

void FdTable::set_close_on_exec_range(u32 first, u32 last) {
  for (size_t fd = first; fd < slots_.size() && fd <= last; ++fd) slots_[fd].close_on_exec = true;
}

Result<bool> FdTable::close_on_exec(int fd) const {
  const Slot* slot = find(fd);
  if (slot == nullptr) return Error(EBADF);
  return slot->close_on_exec;
}

Result<void> FdTable::set_close_on_exec(int fd, bool value) {
  if (find(fd) == nullptr) return Error(EBADF);
  slots_[fd].close_on_exec = value;
  return {};
}

void FdTable::close_for_exec() {
  for (size_t fd = 0; fd < slots_.size(); ++fd) {
    if (slots_[fd].close_on_exec) (void)close(static_cast<int>(fd));
  }
}

Result<Ref<FdTable>> FdTable::copy() const {
  Ref<FdTable> result = TRY(make_ref<FdTable>());
  TRY(result->slots_.resize(slots_.size()));
  for (size_t fd = 0; fd < slots_.size(); ++fd) {
    result->slots_[fd].file = slots_[fd].file;
    result->slots_[fd].close_on_exec = slots_[fd].close_on_exec;
  }
  result->lowest_free_ = lowest_free_;
  result->limit = limit;
  return result;
}

int FdTable::next_used(int fd) const {
  for (size_t i = fd < 0 ? 0 : static_cast<size_t>(fd); i < slots_.size(); ++i) {
    if (slots_[i].file) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace husk::linux

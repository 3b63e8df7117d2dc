#include "kernel/linux/sockets_control.h"

#include <asm/socket.h>

#include <algorithm>

#include "kernel/linux/sockets.h"

namespace husk::linux {

namespace {

constexpr int kRights = 1, kCredentials = 2;  // SCM_RIGHTS, SCM_CREDENTIALS
constexpr size_t kFilesMax = 253;             // SCM_MAX_FD
constexpr u64 kControlMax = 131072;           // net.core.optmem_max

struct ControlHeader {  // struct cmsghdr
  u64 size;
  int level, type;
};

Result<void> take_rights(std::span<const u8> data, Vec<Ref<vfs::File>>& files) {
  for (size_t at = 0; at + sizeof(int) <= data.size(); at += sizeof(int)) {
    int fd;
    memcpy(&fd, data.data() + at, sizeof(fd));
    if (files.size() == kFilesMax) return Error(EINVAL);
    auto file = TRY(current_file(fd));
    TRY(files.push_back(std::move(file)));
  }
  return {};
}

// Only root may say that it is somebody else.
Result<void> check_credentials(const vfs::SocketCredentials& given) {
  const Process& process = current_process();
  const Credentials& own = process.credentials;
  if (own.euid != 0) {
    bool user = given.uid == own.uid || given.uid == own.euid || given.uid == own.suid;
    bool group = given.gid == own.gid || given.gid == own.egid || given.gid == own.sgid;
    if (given.pid != process.pid || !user || !group) return Error(EPERM);
  }
  if (given.pid != process.pid && find_task(given.pid) == nullptr) return Error(ESRCH);
  return {};
}

}  // namespace

Result<void> ControlToSend::read(int domain, u64 address, u64 size) {
  if (size > kControlMax) return Error(ENOBUFS);
  Vec<u8> bytes;
  TRY(bytes.resize(size));
  TRY(mem::copy_from_user(bytes.data(), address, size));
  std::span<const u8> rest(bytes.data(), size);
  while (rest.size() >= sizeof(ControlHeader)) {
    ControlHeader header;
    memcpy(&header, rest.data(), sizeof(header));
    if (header.size < sizeof(header) || header.size > rest.size()) return Error(EINVAL);
    std::span<const u8> body = rest.subspan(sizeof(header), header.size - sizeof(header));
    const bool general = header.level == SOL_SOCKET;
    if (general && header.type == kRights) {
      if (domain == kUnixFamily) TRY(take_rights(body, files));
    } else if (general && header.type == kCredentials) {
      if (body.size() != sizeof(credentials)) return Error(EINVAL);
      memcpy(&credentials, body.data(), sizeof(credentials));
      TRY(check_credentials(credentials));
      has_credentials = true;
    } else if (general && domain == kUnixFamily) {
      return Error(EINVAL);
    } else if (domain != kUnixFamily) {
      vfs::ControlData item{header.level, header.type, static_cast<u32>(body.size()), {}};
      if (body.size() > sizeof(item.bytes)) return Error(EINVAL);
      memcpy(item.bytes, body.data(), body.size());
      TRY(data.push_back(item));
    }
    rest = rest.subspan(std::min<u64>(align_up(header.size, 8), rest.size()));
  }
  return {};
}

void ControlToSend::attach_to(vfs::SocketMessage& message) {
  if (!files.empty()) message.files = &files;
  if (!data.empty()) message.control = &data;
  if (has_credentials) message.credentials = &credentials;
}

// --- received ----------------------------------------------------------------------------------------------------------------------

namespace {

class Writer {
 public:
  Writer(u64 address, u64 room, u32* flags) : start_(address), at_(address), left_(room), flags_(flags) {}
  u64 used() const { return at_ - start_; }

  Result<void> put(int level, int type, const void* body, size_t size) {
    ControlHeader header{sizeof(header) + size, level, type};
    if (left_ < sizeof(header)) return truncated();
    if (left_ < header.size) {
      (void)truncated().ok();
      header.size = left_;
    }
    TRY(mem::copy_to_user(at_, &header, sizeof(header)));
    TRY(mem::copy_to_user(at_ + sizeof(header), body, header.size - sizeof(header)));
    advance(header.size);
    return {};
  }

  Result<void> put_files(const Vec<Ref<vfs::File>>& files, bool close_on_exec) {
    size_t fit = left_ < sizeof(ControlHeader) ? 0 : std::min<u64>(files.size(), (left_ - sizeof(ControlHeader)) / sizeof(int));
    size_t count = 0;
    for (; count < fit; ++count) {
      Result<int> fd = current_files().install(files[count], close_on_exec);
      if (!fd.ok()) break;
      if (mem::copy_to_user(at_ + sizeof(ControlHeader) + count * sizeof(int), &*fd, sizeof(int)).ok()) continue;
      (void)current_files().close(*fd).ok();
      return Error(EFAULT);
    }
    if (count < files.size()) (void)truncated().ok();
    if (count == 0) return {};
    ControlHeader header{sizeof(header) + count * sizeof(int), SOL_SOCKET, kRights};
    TRY(mem::copy_to_user(at_, &header, sizeof(header)));
    advance(header.size);
    return {};
  }

 private:
  Result<void> truncated() {
    *flags_ |= vfs::kMessageControlTruncated;
    return {};
  }
  void advance(u64 size) {
    u64 step = std::min<u64>(align_up(size, 8), left_);
    at_ += step;
    left_ -= step;
  }
  u64 start_, at_, left_;
  u32* flags_;
};

}  // namespace

void ControlReceived::attach_to(vfs::SocketMessage& message) {
  message.files = &files;
  message.control = &data;
  message.credentials = &credentials;
}

Result<u64> ControlReceived::write(const vfs::SocketMessage& message, u64 address, u64 room, bool close_on_exec, u32* flags) {
  Writer writer(address, room, flags);
  if (message.has_credentials) TRY(writer.put(SOL_SOCKET, kCredentials, &credentials, sizeof(credentials)));
  for (const vfs::ControlData& item : data) TRY(writer.put(item.level, item.type, item.bytes, item.size));
  if (!files.empty()) TRY(writer.put_files(files, close_on_exec));
  return writer.used();
}

}  // namespace husk::linux

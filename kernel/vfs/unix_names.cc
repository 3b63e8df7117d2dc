// Addresses of AF_UNIX and the table of who has which.
#include <algorithm>

#include "kernel/vfs/unix_end.h"

namespace husk::vfs {

namespace {

constexpr size_t kBuckets = 64;
constinit UnixEnd* buckets[kBuckets] = {};

UnixEnd*& bucket_of(const Inode& inode) { return buckets[reinterpret_cast<u64>(&inode) / alignof(Inode) / 16 % kBuckets]; }

UnixEnd*& bucket_of(const SocketAddress& name) {
  u32 hash = 2166136261;
  for (u32 i = kUnixPathOffset; i < name.size; ++i) hash = (hash ^ name.bytes[i]) * 16777619;
  return buckets[(hash ^ hash >> 16) % kBuckets];
}

UnixEnd*& bucket_of(const UnixName& name) { return name.inode ? bucket_of(*name.inode) : bucket_of(name.address); }

bool same(const SocketAddress& a, const SocketAddress& b) { return a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0; }

}  // namespace

UnixEnd* find_bound(const Inode& inode) {
  UnixEnd* end = bucket_of(inode);
  while (end != nullptr && end->name->inode.get() != &inode) end = end->next_bound;
  return end;
}

UnixEnd* find_bound(const SocketAddress& name, int type) {
  UnixEnd* end = bucket_of(name);
  while (end != nullptr && (end->name->inode || end->type != type || !same(end->name->address, name))) end = end->next_bound;
  return end;
}

void add_bound(UnixEnd& end) {
  UnixEnd*& first = bucket_of(*end.name);
  end.next_bound = std::exchange(first, &end);
  end.bound = true;
}

void remove_bound(UnixEnd& end) {
  if (!end.bound) return;
  UnixEnd** at = &bucket_of(*end.name);
  while (*at != &end) at = &(*at)->next_bound;
  *at = end.next_bound;
  end.bound = false;
}

Result<SocketAddress> unix_address(const SocketAddress& given) {
  if (given.size <= kUnixPathOffset || given.size > kUnixPathOffset + kUnixPathMax || given.family() != kUnixFamily) return Error(EINVAL);
  SocketAddress address = given;
  if (is_abstract(address)) return address;
  // The NUL behind a path counts, whether it was given or not.
  const char* path = reinterpret_cast<const char*>(address.bytes) + kUnixPathOffset;
  size_t length = strnlen(path, given.size - kUnixPathOffset);
  memset(address.bytes + kUnixPathOffset + length, 0, SocketAddress::kMax - kUnixPathOffset - length);
  address.size = static_cast<u32>(kUnixPathOffset + length + 1);
  return address;
}

}  // namespace husk::vfs

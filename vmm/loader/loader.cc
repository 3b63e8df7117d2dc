// See loader.h.
#include "vmm/loader/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include "vmm/monitor_error.h"

namespace husk::vmm {
namespace {

using abi::ImageHeader;
using abi::ImagePart;

bool inside(u64 offset, u64 size, u64 whole) { return offset <= whole && size <= whole - offset; }

constexpr u64 kKernelSizeMax = 64 * kMiB, kNubSizeMax = kMiB;

const char* check_parts(const ImagePart* parts, u32 count, u64 file_size, u64 memory_size) {
  if (count == 0 || count > abi::kImagePartsMax) return "bad number of parts";
  u64 end = 0;
  for (u32 i = 0; i < count; ++i) {
    const ImagePart& part = parts[i];
    if (!is_aligned(part.file_offset | part.virtual_offset, kPageSize)) return "a part is not page-aligned";
    if (!inside(part.file_offset, part.file_size, file_size)) return "a part lies outside the file";
    if (part.file_size > part.memory_size || part.memory_size == 0) return "a part has a bad size";
    if (part.virtual_offset < end || !inside(part.virtual_offset, part.memory_size, memory_size)) return "parts overlap or leave their range";
    end = align_up(part.virtual_offset + part.memory_size, kPageSize);
    bool copied = (part.flags & abi::kPartWrite) || part.relro;
    if (copied && (part.flags & abi::kPartExecute)) return "a part is writable and executable";
    // Used in place: the whole of it must be in the file, to the end of its last page.
    if (!copied && !inside(part.file_offset, align_up(part.memory_size, kPageSize), align_up(file_size, kPageSize))) {
      return "a part lies outside the file";
    }
    if (!copied && part.file_size != part.memory_size) return "a part that is used in place is not whole";
  }
  for (u32 i = count; i < abi::kImagePartsMax; ++i) {
    const ImagePart& unused = parts[i];
    if ((unused.file_offset | unused.virtual_offset | unused.file_size | unused.memory_size | unused.flags | unused.relro) != 0) {
      return "a part that does not count is not empty";
    }
  }
  return nullptr;
}

bool in_part(const ImagePart* parts, u32 count, u32 flag, u64 offset, u64 size) {
  for (u32 i = 0; i < count; ++i) {
    if ((parts[i].flags & flag) && offset >= parts[i].virtual_offset && inside(offset - parts[i].virtual_offset, size, parts[i].memory_size))
      return true;
  }
  return false;
}

}  // namespace

const char* check_image_header(const ImageHeader& header, u64 size) {
  if (header.magic != abi::kImageMagic) return "not a husk image";
  if (header.version != abi::kImageVersion) return "made for another version of husk; build it again";
  if (header.file_size != size) return "truncated or with bytes appended";
  if (header.kernel_size > kKernelSizeMax || header.nub_size > kNubSizeMax) return "the kernel is too large";
  if (const char* error = check_parts(header.nub_parts, header.nub_part_count, size, header.nub_size)) return error;
  if (const char* error = check_parts(header.kernel_parts, header.kernel_part_count, size, header.kernel_size)) return error;
  for (u64 entry : {header.kernel_start, header.kernel_upcall_entry, header.kernel_trapped_syscall_entry, header.kernel_nub_call_site}) {
    if (!in_part(header.kernel_parts, header.kernel_part_count, abi::kPartExecute, entry, 1)) return "a kernel entry lies outside its text";
  }
  const ImagePart* nub = header.nub_parts;
  if (!is_aligned(header.nub_vector_stubs, kPageSize) ||
      !in_part(nub, header.nub_part_count, abi::kPartExecute, header.nub_vector_stubs, kPageSize) ||
      header.nub_syscall_stub - header.nub_vector_stubs >= kPageSize) {
    return "the nub's entry code is misplaced";
  }
  if (!in_part(nub, header.nub_part_count, abi::kPartWrite, header.nub_state, sizeof(abi::NubState)) || !is_aligned(header.nub_state, 8)) {
    return "the nub's state is misplaced";
  }
  u64 relocation_bytes;
  if (!checked_mul(header.relocation_words, u64{8}, &relocation_bytes) || !is_aligned(header.relocations_offset, 8) ||
      !inside(header.relocations_offset, relocation_bytes, size)) {
    return "the relocation bitmap lies outside the file";
  }
  for (auto [offset, bytes] : {std::pair{header.manifest_offset, header.manifest_size}, std::pair{header.config_offset, header.config_size},
                               std::pair{header.rootfs_offset, header.rootfs_size}}) {
    if (!inside(offset, bytes, size)) return "a part lies outside the file";
  }
  return nullptr;
}

ImageFile ImageFile::open(const std::string& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) throw_errno("opening the image " + path);
  return from_fd(std::move(fd), path);
}

ImageFile ImageFile::from_fd(FileDescriptor fd, const std::string& name) {
  ImageFile image;
  image.fd_ = std::move(fd);
  struct stat status {};
  if (fstat(image.fd_.get(), &status) != 0) throw_errno("reading the image " + name);
  if (!S_ISREG(status.st_mode)) throw MonitorError(name + ": not a regular file");
  image.size_ = static_cast<u64>(status.st_size);
  ssize_t got = pread(image.fd_.get(), &image.header_, sizeof(ImageHeader), abi::kImageHeaderOffset);
  if (got < 0) throw_errno("reading the image " + name);
  if (got != static_cast<ssize_t>(sizeof(ImageHeader))) throw MonitorError(name + ": too short for a husk image; make one with husk build");
  if (const char* error = check_image_header(image.header_, image.size_)) {
    throw MonitorError(name + ": " + error + "; make the image again with husk build");
  }
  return image;
}

// Between what the machine starts from and its files are zeros.
const std::shared_ptr<FileWithCopy>& ImageFile::with_copy() {
  if (with_copy_ == nullptr)
    with_copy_ = std::make_shared<FileWithCopy>(size_, fd_.get(), header_.manifest_offset + header_.manifest_size, header_.rootfs_offset);
  return with_copy_;
}

LoadedMachine load_machine(Vm& vm, ImageFile& image, const LoadOptions& options) {
  const ImageHeader& header = image.header();
  GuestMemory& memory = vm.memory();
  if (options.ram_size == 0 || !is_aligned(options.ram_size, kPageSize)) throw MonitorError("the memory size must be a multiple of 4 KiB");
  if (options.windows.size() > abi::kWindowsMax) throw MonitorError("too many devices");
  memory.add_ram(0, options.ram_size);
  if (options.shadow_paging) memory.add_file_with_copy(abi::kMonitorImageAddress, *image.with_copy());
  else memory.add_file(abi::kMonitorImageAddress, image.size(), image.fd());

  abi::MachineInput input{};
  input.header = &header;
  input.image_physical = abi::kMonitorImageAddress;
  input.machine = abi::MachineKind::monitor;
  input.ram[0] = {0, options.ram_size};
  input.ram_count = 1;
  input.ram_size = options.ram_size;
  input.start_tsc = options.start_tsc != 0 ? options.start_tsc : __rdtsc();
  std::span<const u8> config = options.config;
  if (config.empty()) config = memory.readable({abi::kMonitorImageAddress + header.config_offset}, header.config_size);
  input.config = config.data();
  input.config_size = config.size();
  input.entropy = options.entropy.data();
  input.windows = options.windows.data();
  input.window_count = static_cast<u32>(options.windows.size());
  input.ram_is_zero = 1;
  input.features = options.features;
  input.monitor_tables = options.shadow_paging;
  input.huge_text = options.shadow_paging;

  u8* ram = memory.range({0}, options.ram_size, Access::write).data();
  u8* file = memory.range({abi::kMonitorImageAddress}, image.size(), Access::read).data();
  abi::MachineOutput output{};
  auto at = [ram, file](u64 physical) {
    return physical >= abi::kMonitorImageAddress ? file + (physical - abi::kMonitorImageAddress) : ram + physical;
  };
  if (const char* error = abi::build_machine(input, at, &output)) {
    throw MonitorError(std::string(error) + "; give the machine more with -m (it has " + std::to_string(options.ram_size / kKiB) + " KiB)");
  }
  for (const abi::MemoryRange& range : {output.nub_region, output.relro}) memory.hide(range.start, range.size);
  vm.install_memory();
  return {output.cpu, {output.monitor_page_physical}, {output.boot_info_physical}, {output.nub_state_physical}, {output.vcpu_shared_physical}};
}

}  // namespace husk::vmm

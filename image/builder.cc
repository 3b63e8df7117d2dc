// The steps of a build, in order: plan the files, rewrite the programs among them, make the file system, lay out and
// write the image.
#include "image/builder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "abi/boot_config.h"
#include "abi/image_format.h"
#include "image/open.h"
#include "image/parts.h"
#include "image/rewrite/rewrite.h"
#include "image/rootfs/erofs.h"

namespace husk::image {
namespace {

constexpr u64 kProgramBytesMax = 4 * kMiB;  // how much of the program input_digest reads
constexpr u32 kPhys32Entry = 18;            // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h

class LoadedBlob {
 public:
  explicit LoadedBlob(const Blob& blob) : name_(blob.path), bytes_(blob.bytes) {
    if (!bytes_.empty()) return;
    file_.emplace(MappedFile::open(blob.path));
    bytes_ = file_->bytes();
  }
  Bytes bytes() const { return bytes_; }
  ElfView view() const { return ElfView::parse(bytes_, name_); }

 private:
  std::string name_;
  std::optional<MappedFile> file_;
  Bytes bytes_;
};

std::vector<u8> boot_config(const Manifest& manifest) {
  std::vector<u8> config;
  auto add = [&](abi::ConfigTag tag, std::string_view value) { abi::append_config(config, tag, value); };
  add(abi::ConfigTag::program, manifest.program);
  for (const auto& argument : manifest.arguments) add(abi::ConfigTag::argument, argument);
  for (const auto& variable : manifest.environment) add(abi::ConfigTag::environment, variable);
  add(abi::ConfigTag::directory, manifest.directory);
  add(abi::ConfigTag::host_name, "husk");
  if (manifest.jit) add(abi::ConfigTag::jit, {});
  if (manifest.memory != 0) add(abi::ConfigTag::memory_size, {reinterpret_cast<const char*>(&manifest.memory), sizeof(manifest.memory)});
  add(abi::ConfigTag::end, {});
  return config;
}

// The file being written: appends at aligned offsets; holes read as zeros. Removed unless it is published.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path) : path_(path), temporary_(path + ".new-" + std::to_string(getpid())) {
    // Without a name until it is complete, where the file system can: then a killed build leaves nothing.
    file_ = Descriptor(open(parent_of(absolute_path(path)).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0644));
    if (file_.valid()) return;
    file_ = Descriptor(open(temporary_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644));
    if (!file_.valid()) fail_errno(path);
    named_ = true;
  }
  ~OutputFile() {
    if (named_) unlink(temporary_.c_str());
  }
  u64 append(Bytes bytes, u64 alignment) {
    u64 at = align_up(end_, alignment);
    write_all(file_.get(), bytes, at, path_);
    end_ = at + bytes.size();
    return at;
  }
  void write(Bytes bytes, u64 offset) { write_all(file_.get(), bytes, offset, path_); }
  std::vector<u8> read(u64 size) const {
    std::vector<u8> bytes(size);
    ssize_t got = pread(file_.get(), bytes.data(), size, 0);
    if (got < 0) fail_errno(path_);
    bytes.resize(static_cast<size_t>(got));
    return bytes;
  }
  u64 finish() {
    end_ = align_up(end_, kPageSize);
    if (ftruncate(file_.get(), static_cast<off_t>(end_)) != 0) fail_errno(path_);
    return end_;
  }
  void publish() {
    if (!named_) {
      std::string self = "/proc/self/fd/" + std::to_string(file_.get());
      if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW) != 0) fail_errno(path_);
      named_ = true;
    }
    if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno(path_);
    named_ = false;
  }

 private:
  std::string path_, temporary_;
  Descriptor file_;
  u64 end_ = 0;
  bool named_ = false;
};

Digest append_parts(OutputFile& out, std::vector<LoadedPart>& parts, abi::ImagePart* header, u32* count) {
  Sha256 hash;
  for (auto& loaded : parts) {
    loaded.part.file_offset = out.append(loaded.bytes, kPageSize);
    hash.add(loaded.bytes);
    header[(*count)++] = loaded.part;
  }
  return hash.finish();
}

u64 file_offset_of(const abi::ImageHeader& header, u64 nub_offset) {
  for (u32 i = 0; i < header.nub_part_count; ++i) {
    const auto& part = header.nub_parts[i];
    if (nub_offset >= part.virtual_offset && nub_offset - part.virtual_offset < part.file_size) {
      return part.file_offset + (nub_offset - part.virtual_offset);
    }
  }
  throw Error("the nub's entry lies outside its parts; the husk installation is damaged, build it again");
}

// ELF header, two program headers, and the note with the 32-bit entry (PVH: xen/docs/misc/pvh.pandoc).
std::vector<u8> first_page(u64 file_size, u64 entry) {
  struct {
    Elf64_Ehdr header;
    Elf64_Phdr load, note;
    Elf64_Nhdr note_header;
    char name[4];
    u64 entry;
  } page = {};
  static_assert(offsetof(decltype(page), entry) == sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr) + 16);
  u64 note_at = offsetof(decltype(page), note_header), note_size = sizeof(page) - note_at;
  memcpy(page.header.e_ident, ELFMAG, SELFMAG);
  page.header.e_ident[EI_CLASS] = ELFCLASS64;
  page.header.e_ident[EI_DATA] = ELFDATA2LSB;
  page.header.e_ident[EI_VERSION] = EV_CURRENT;
  page.header.e_type = ET_EXEC;
  page.header.e_machine = EM_X86_64;
  page.header.e_version = EV_CURRENT;
  page.header.e_entry = entry;
  page.header.e_phoff = sizeof(Elf64_Ehdr);
  page.header.e_ehsize = sizeof(Elf64_Ehdr);
  page.header.e_phentsize = sizeof(Elf64_Phdr);
  page.header.e_phnum = 2;
  page.load = {PT_LOAD, PF_R | PF_W | PF_X, 0, abi::kImageLoadAddress, abi::kImageLoadAddress, file_size, file_size, kPageSize};
  page.note = {PT_NOTE, PF_R, note_at, abi::kImageLoadAddress + note_at, abi::kImageLoadAddress + note_at, note_size, note_size, 4};
  page.note_header = {4, sizeof(u64), kPhys32Entry};
  memcpy(page.name, "Xen", 4);
  page.entry = entry;
  auto* bytes = reinterpret_cast<const u8*>(&page);
  return {bytes, bytes + sizeof(page)};
}

struct Contents {
  NubParts nub;
  KernelParts kernel;
  const Manifest& manifest;
  const std::string& rootfs;
};

void write_image(Contents& contents, const std::string& output) {
  auto header_owner = std::make_unique<abi::ImageHeader>();
  abi::ImageHeader& header = *header_owner;
  OutputFile out(output);
  header.magic = abi::kImageMagic;
  header.version = abi::kImageVersion;
  if (contents.manifest.jit) header.flags |= abi::kImageJit;

  const auto& kernel = contents.kernel;
  std::vector<u8> head(sizeof(abi::ImageHeader));
  Bytes relocations(reinterpret_cast<const u8*>(kernel.relocations.data()), kernel.relocations.size() * sizeof(u64));
  head.insert(head.end(), relocations.begin(), relocations.end());
  out.append(std::vector<u8>(1), kPageSize);  // the first page and the header follow when all is known
  out.append(head, abi::kImageHeaderOffset);
  header.relocations_offset = abi::kImageHeaderOffset + sizeof(abi::ImageHeader);
  header.relocation_words = kernel.relocations.size();
  header.relocated_start = kernel.relocated_start;

  Digest nub = append_parts(out, contents.nub.parts, header.nub_parts, &header.nub_part_count);
  Digest kernel_digest = append_parts(out, contents.kernel.parts, header.kernel_parts, &header.kernel_part_count);
  memcpy(header.nub_sha256, nub.data(), nub.size());
  memcpy(header.kernel_sha256, kernel_digest.data(), kernel_digest.size());
  header.kernel_start = kernel.start;
  header.kernel_upcall_entry = kernel.upcall_entry;
  header.kernel_trapped_syscall_entry = kernel.trapped_syscall_entry;
  header.kernel_nub_call_site = kernel.nub_call_site;
  header.kernel_size = kernel.size;
  header.nub_size = contents.nub.size;
  header.nub_entry_pvh = contents.nub.entry_pvh;
  header.nub_syscall_stub = contents.nub.syscall_stub;
  header.nub_vector_stubs = contents.nub.vector_stubs;
  header.nub_state = contents.nub.state;

  auto config = boot_config(contents.manifest);
  header.config_offset = out.append(config, kPageSize);
  header.config_size = config.size();
  std::string manifest = to_json(contents.manifest).dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
  header.manifest_offset = out.append(as_bytes(manifest), kPageSize);
  header.manifest_size = manifest.size();
  Digest manifest_digest = sha256(as_bytes(manifest));
  memcpy(header.manifest_sha256, manifest_digest.data(), manifest_digest.size());

  MappedFile rootfs = MappedFile::open(contents.rootfs);
  u64 alignment = rootfs.bytes().size() > kHugePageSize ? kHugePageSize : kPageSize;
  header.rootfs_offset = out.append(rootfs.bytes(), alignment);
  header.rootfs_size = rootfs.bytes().size();
  Digest rootfs_digest = sha256(rootfs.bytes());
  memcpy(header.rootfs_sha256, rootfs_digest.data(), rootfs_digest.size());

  header.file_size = out.finish();
  u64 entry = abi::kImageLoadAddress + file_offset_of(header, contents.nub.entry_pvh);
  out.write(first_page(header.file_size, entry), 0);
  Bytes header_bytes(reinterpret_cast<const u8*>(&header), sizeof(header));
  out.write(header_bytes, abi::kImageHeaderOffset);
  header.start_checksum = start_checksum(out.read(header.config_offset + header.config_size), header);
  out.write(header_bytes, abi::kImageHeaderOffset);
  out.publish();
}

bool may_hold_code(const std::string& path, const TreeNode& node) {
  return node.kind == TreeNode::Kind::file && !node.source.empty() && ((node.mode & 0111) || path.find(".so") != std::string::npos);
}

std::map<std::string, std::vector<u8>> rewrite_files(const Plan& plan, Manifest& manifest, const ProgressFunction& progress) {
  std::map<std::string, std::vector<u8>> replaced;
  u64 done = 0;
  for (const auto& [path, node] : plan.tree.nodes()) {
    ++done;
    if (!may_hold_code(path, node)) continue;
    if (progress) progress({"rewriting", path, done, plan.tree.nodes().size()});
    MappedFile file = MappedFile::open(node.source);
    if (!ElfView::looks_like_elf(file.bytes())) continue;
    RewriteResult result;
    try {
      result = rewrite_system_calls(ElfView::parse(file.bytes(), path));
    } catch (const Error& error) {
      manifest.warnings.push_back(error.what());  // for another machine, or damaged: stays as it is
      continue;
    }
    if (!result.report.rewritten.empty() || !result.report.left.empty()) {
      manifest.files.push_back({path, std::move(result.report)});
    }
    if (!result.bytes.empty()) replaced.emplace(path, std::move(result.bytes));
  }
  return replaced;
}

void check_text(const std::vector<std::string>& words, const char* what) {
  for (const auto& word : words) {
    if (word.find('\0') != std::string::npos) throw Error(std::string(what) + " holds a NUL character");
  }
}

}  // namespace

Manifest build_image(const BuildRequest& request, const std::string& output, const ProgressFunction& progress) {
  auto tell = [&](const char* step) {
    if (progress) progress({step, {}, 0, 0});
  };
  check_text(request.arguments, "an argument");
  check_text(request.environment, "an environment variable");
  LoadedBlob nub(request.nub), kernel(request.kernel);
  NubParts nub_parts = take_nub_apart(nub.view());
  KernelParts kernel_parts = take_kernel_apart(kernel.view());

  tell("files");
  Plan plan = make_plan(request);
  Manifest manifest;
  manifest.program = plan.program;
  manifest.arguments = plan.arguments;
  manifest.environment = request.environment;
  manifest.directory = request.directory;
  manifest.memory = request.memory;
  manifest.jit = request.jit || plan.jit;
  manifest.warnings = plan.warnings;
  manifest.file_count = plan.tree.nodes().size();
  if (!request.directory.starts_with("/")) throw Error("the working directory must be absolute: " + request.directory);
  if (!plan.tree.contains(request.directory)) plan.tree.add_directory(plan.tree.resolve(request.directory));
  auto replaced = rewrite_files(plan, manifest, progress);

  tell("file system");
  TemporaryDirectory scratch;
  std::string rootfs = write_erofs(plan.tree, replaced, scratch.path());
  tell("writing");
  Contents contents{std::move(nub_parts), std::move(kernel_parts), manifest, rootfs};
  write_image(contents, output);
  return manifest;
}

std::string input_digest(const BuildRequest& request) {
  Plan plan = make_plan(request);
  Sha256 hash;
  hash.add_text("husk image 1");
  hash.add(identity(plan));
  MappedFile program = MappedFile::open(plan.tree.nodes().at(plan.tree.resolve(plan.program)).source);
  hash.add(program.bytes().first(std::min(program.bytes().size(), size_t{kProgramBytesMax})));
  hash.add_number(request.environment.size());
  for (const auto& variable : request.environment) hash.add_text(variable);
  hash.add_text(request.directory);
  hash.add_number(request.memory);
  hash.add_number(request.jit);
  for (const Blob* blob : {&request.nub, &request.kernel}) hash.add(sha256(LoadedBlob(*blob).bytes()));
  return hex(hash.finish());
}

}  // namespace husk::image

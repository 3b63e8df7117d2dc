// Whole images, with a small nub and kernel made for the test.
#include "image/builder.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "abi/boot_config.h"
#include "image/elf/view.h"
#include "image/inspect.h"

namespace husk::image {
namespace {

constexpr char kNub[] = R"(
.globl pvh_entry, nub_syscall_stub, nub_vector_stubs, nub_state
.text
nub_syscall_stub: nop
nub_vector_stubs: .fill 768, 1, 0x90
pvh_entry: hlt
.data
nub_state: .quad 5
.section .note.GNU-stack,"",@progbits
)";
constexpr char kKernel[] = R"(
.globl kernel_start, kernel_upcall_entry, kernel_trapped_syscall_entry, kernel_nub_call_site
.text
kernel_start: syscall
kernel_nub_call_site: ret
kernel_upcall_entry: ret
kernel_trapped_syscall_entry: ret
.section .data.rel.ro, "aw"
.quad kernel_upcall_entry
.data
.quad kernel_start
.bss
.fill 10000
.section .note.GNU-stack,"",@progbits
)";

class BuilderTest : public testing::Test {
 protected:
  void SetUp() override {
    assemble("nub", kNub, "-static -no-pie -Wl,-Ttext-segment=0xffffffff80000000,-e,pvh_entry");
    assemble("kernel", kKernel, "-static-pie -Wl,-z,relro,-z,now,-e,kernel_start");
    request_.program = "/bin/cat";
    request_.arguments = {"-n"};
    request_.environment = {"A=b"};
    request_.nub.path = path("nub");
    request_.kernel.path = path("kernel");
  }
  std::string path(const std::string& name) { return directory_.path() + "/" + name; }
  void assemble(const std::string& name, const char* source, const std::string& flags) {
    std::ofstream(path(name + ".S")) << source;
    std::string command = "cc -nostdlib -Wl,--build-id=none " + flags + " -o " + path(name) + " " + path(name + ".S");
    ASSERT_EQ(system(command.c_str()), 0) << command;
  }
  static std::vector<u8> bytes_of(const std::string& file) {
    auto mapped = MappedFile::open(file);
    return {mapped.bytes().begin(), mapped.bytes().end()};
  }
  static std::string error_of(Bytes bytes, Verify verify) {
    try {
      Image::from_bytes(bytes, "x.husk", verify).manifest();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  TemporaryDirectory directory_;
  BuildRequest request_;
};

TEST_F(BuilderTest, image_has_everything_and_repeats) {
  build_image(request_, path("one.husk"));
  build_image(request_, path("two.husk"));
  EXPECT_EQ(bytes_of(path("one.husk")), bytes_of(path("two.husk")));
  Image image = Image::open(path("one.husk"), Verify::whole);
  EXPECT_TRUE(Image::looks_like_image(path("one.husk")));
  EXPECT_FALSE(Image::looks_like_image("/bin/cat"));
  const auto& header = image.header();
  EXPECT_EQ(header.nub_vector_stubs, header.nub_syscall_stub + 1);
  EXPECT_EQ(header.kernel_nub_call_site, header.kernel_start + 2);
  u32 relro = 0;
  for (u32 i = 0; i < header.kernel_part_count; ++i) relro += header.kernel_parts[i].relro;
  EXPECT_EQ(relro, 1u);
  EXPECT_EQ(read_at<u32>(image.rootfs(), 1024), 0xE0F5E1E2u);
  Manifest manifest = image.manifest();
  EXPECT_EQ(manifest.arguments, (std::vector<std::string>{"/bin/cat", "-n"}));
  EXPECT_FALSE(manifest.files.empty());
  EXPECT_EQ(to_json(manifest), to_json(manifest_from_json(as_bytes(to_json(manifest).dump()), "again")));
  EXPECT_NE(inspect_text(image, Detail::sites).find("libc.so.6"), std::string::npos);
  EXPECT_EQ(inspect_json(image)["sizes"]["file"], header.file_size);
  std::vector<std::string> config;
  abi::ConfigReader reader(image.config());
  while (auto record = reader.next()) config.emplace_back(record->text());
  EXPECT_EQ(config, (std::vector<std::string>{"/bin/cat", "/bin/cat", "-n", "A=b", "/", "husk"}));
}

TEST_F(BuilderTest, pvh_note_points_at_the_entry_where_a_loader_puts_it) {
  build_image(request_, path("one.husk"));
  auto bytes = bytes_of(path("one.husk"));
  ElfView elf = ElfView::parse(bytes, "image");
  auto notes = elf.notes(*elf.segment(PT_NOTE));
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0].name, "Xen");
  EXPECT_EQ(notes[0].type, 18u);
  u64 entry = *read_at<u64>(notes[0].description, 0);
  EXPECT_EQ(bytes[entry - abi::kImageLoadAddress], 0xf4);  // hlt
}

TEST_F(BuilderTest, relocated_words_hold_their_addends) {
  build_image(request_, path("one.husk"));
  Image image = Image::open(path("one.husk"), Verify::layout);
  const auto& header = image.header();
  std::vector<u64> addends;
  for (u64 n = 0; n < header.relocation_words * 64; ++n) {
    if ((*read_at<u64>(image.bytes(), header.relocations_offset + n / 64 * 8) >> (n % 64) & 1) == 0) continue;
    u64 offset = header.relocated_start + 8 * n;
    for (u32 p = 0; p < header.kernel_part_count; ++p) {
      const auto& part = header.kernel_parts[p];
      if (offset - part.virtual_offset < part.file_size) {
        addends.push_back(*read_at<u64>(image.bytes(), part.file_offset + offset - part.virtual_offset));
      }
    }
  }
  EXPECT_EQ(addends, (std::vector<u64>{header.kernel_upcall_entry, header.kernel_start}));
}

TEST_F(BuilderTest, damaged_images_get_one_clear_line) {
  build_image(request_, path("one.husk"));
  auto good = bytes_of(path("one.husk"));
  EXPECT_EQ(error_of(good, Verify::whole), "");
  EXPECT_NE(error_of(Bytes(good).first(good.size() / 2), Verify::layout).find("is truncated"), std::string::npos);
  EXPECT_NE(error_of(Bytes(good).first(100), Verify::layout).find("is not a husk image"), std::string::npos);
  auto bad = good;
  bad.back() ^= 1;
  bad[bad.size() - 5000] ^= 1;
  EXPECT_EQ(error_of(bad, Verify::layout), "");
  EXPECT_EQ(error_of(bad, Verify::start), "");
  EXPECT_NE(error_of(bad, Verify::whole).find("the digest of its root file system is wrong"), std::string::npos);
  bad = good;
  bad[abi::kImageHeaderOffset + sizeof(abi::ImageHeader) - 1] ^= 1;  // start_checksum itself
  EXPECT_NE(error_of(bad, Verify::start).find("is damaged"), std::string::npos);
  bad = good;
  bad[abi::kImageHeaderOffset + 8] = 9;
  EXPECT_NE(error_of(bad, Verify::layout).find("has image version 9"), std::string::npos);
}

TEST_F(BuilderTest, failed_build_leaves_the_old_image_and_nothing_else) {
  std::ofstream(path("out.husk")) << "old";
  size_t before = std::distance(std::filesystem::directory_iterator(directory_.path()), {});
  request_.program = "/no/such";
  EXPECT_THROW(build_image(request_, path("out.husk")), Error);
  request_.program = "/bin/cat";
  request_.kernel.path = path("nub");
  EXPECT_THROW(build_image(request_, path("out.husk")), Error);
  EXPECT_EQ(bytes_of(path("out.husk")).size(), 3u);
  EXPECT_EQ(before, static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_.path()), {})));
}

TEST_F(BuilderTest, input_digest_sees_options_and_kernel) {
  std::string digest = input_digest(request_);
  EXPECT_EQ(digest, input_digest(request_));
  EXPECT_EQ(digest.size(), 64u);
  auto changed = request_;
  changed.arguments = {"-b"};
  EXPECT_NE(digest, input_digest(changed));
  changed = request_;
  changed.jit = true;
  EXPECT_NE(digest, input_digest(changed));
  changed = request_;
  changed.kernel.path = path("nub");
  EXPECT_NE(digest, input_digest(changed));
}

}  // namespace
}  // namespace husk::image

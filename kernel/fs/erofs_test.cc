// EROFS against the directory that mkfs.erofs made the image from.
#include <set>

#include "kernel/fs/test_image.h"
#include "kernel/fs/test_support.h"

namespace husk {
namespace {

namespace disk = std::filesystem;

class Erofs : public test::Machine {
 protected:
  void SetUp() override {
    if (!test::have_mkfs()) GTEST_SKIP() << "needs mkfs.erofs";
    Machine::SetUp();
    char name[] = "/dev/shm/husk-erofs-dir-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    host = name;
    std::mt19937 random(1);
    test::fill_directory(host, random, 3);
    for (int i = 0; i < 700; ++i) std::ofstream(host + "/file-with-a-long-name-" + std::to_string(i)) << i;
    std::ofstream(host + "/pages") << std::string(5 * 4096, 'p');
  }
  void TearDown() override { disk::remove_all(host); }
  void mount(const test::ErofsImage& image) { tree = vfs::Tree::create(fs::make_erofs(image.bytes(), image.physical()).release()).release(); }
  void compare(const std::string& path) {
    std::set<std::string> expected, got;
    for (const auto& entry : disk::directory_iterator(host + path)) expected.insert(entry.path().filename());
    auto directory = tree->open(tree->root(), path + "/", vfs::kOpenDirectory, 0).release();
    for (;;) {
      test::Names names(5);
      ASSERT_TRUE(directory->read_directory(names).ok());
      if (names.names.empty()) break;
      for (const auto& name : names.names) got.insert(name.name);
    }
    got.erase(".");
    got.erase("..");
    ASSERT_EQ(expected, got) << path;
    for (const std::string& name : expected) {
      std::string at = path + "/" + name;
      disk::path there = host + at;
      auto place = tree->resolve(tree->root(), at, vfs::kNoFollow);
      ASSERT_TRUE(place.ok()) << at;
      if (disk::is_symlink(there)) {
        EXPECT_EQ(place->inode()->read_link().release().view(), disk::read_symlink(there).string());
      } else if (disk::is_directory(there)) {
        compare(at);
      } else {
        std::ifstream in(there);
        std::string bytes((std::istreambuf_iterator<char>(in)), {});
        auto file = tree->open(tree->root(), at, 0, 0).release();
        EXPECT_EQ(test::read(*file, bytes.size() + 10), bytes) << at;
        u64 middle = bytes.size() / 2;
        EXPECT_EQ(test::read(*file, 5, &middle), bytes.substr(middle, 5)) << at;
      }
    }
  }
  std::string host;
  Owned<vfs::Tree> tree;
};

TEST_F(Erofs, same_as_the_directory) {
  for (const char* options : {"", "-Enoinline_data", "-Eforce-inode-extended", "-Eforce-inode-compact -Enoinline_data"}) {
    test::ErofsImage image(host, options);
    mount(image);
    compare("");
    if (HasFailure()) FAIL() << options;
    EXPECT_EQ(test::code(tree->open(tree->root(), "none", 0, 0)), ENOENT);
    EXPECT_EQ(test::code(tree->open(tree->root(), "pages", vfs::kOpenReadWrite, 0)), EROFS);
    EXPECT_EQ(test::code(tree->make_node(tree->root(), "new", vfs::kRegular, 0)), EROFS);
  }
}

TEST_F(Erofs, pages_are_those_of_the_image) {
  test::ErofsImage image(host, "-Enoinline_data");
  mount(image);
  auto file = tree->open(tree->root(), "pages", 0, 0).release();
  auto object = file->memory_object().release();
  EXPECT_TRUE(object->immutable());
  EXPECT_STREQ(object->name(), "/pages");
  auto run = object->pages(1, 100, mem::Access::execute).release();
  EXPECT_EQ(run.pages, 4u);
  u64 offset = run.start - image.physical();
  EXPECT_EQ(offset % kPageSize, 0u);
  EXPECT_EQ(image.bytes()[offset], 'p');
  EXPECT_EQ(test::code(object->pages(5, 1, mem::Access::read)), ENXIO);
  EXPECT_EQ(test::code(object->pages(0, 1, mem::Access::write)), EACCES);
}

TEST_F(Erofs, overlay_maps_the_image_until_the_file_is_written) {
  test::ErofsImage image(host, "-Enoinline_data");
  auto lower = fs::make_erofs(image.bytes(), image.physical()).release();
  tree = vfs::Tree::create(fs::make_overlay(std::move(lower), fs::make_tmpfs(kMiB, 0755).release()).release()).release();
  auto reader = tree->open(tree->root(), "pages", 0, 0).release();
  EXPECT_TRUE(reader->memory_object().release()->immutable());
  auto writer = tree->open(tree->root(), "pages", vfs::kOpenReadWrite, 0).release();
  u64 at = 5000;
  EXPECT_EQ(*test::write(*writer, "NEW", &at), 3u);
  u64 from = 4998;
  EXPECT_EQ(test::read(*reader, 7, &from), "ppNEWpp");
  EXPECT_EQ(writer->stat()->blocks, 8u);  // one page was copied
  auto object = writer->memory_object().release();
  EXPECT_FALSE(object->immutable());
  EXPECT_EQ(*mem::direct(object->pages(4, 1, mem::Access::read)->start), 'p');
}

}  // namespace
}  // namespace husk

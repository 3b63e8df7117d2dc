// flags: -ldl
// Exceptions, iostreams, locale-free formatting, RTTI, static constructors, dlopen.
#include <dlfcn.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>

struct Base {
  virtual ~Base() = default;
};
struct Derived : Base {};
struct Announcer {
  Announcer() { std::cout << "constructed\n"; }
  ~Announcer() { std::cout << "destroyed\n"; }
} announcer;
static int depth(int n) {
  if (n == 0) throw std::out_of_range("deep");
  return depth(n - 1) + 1;
}
int main() {
  try {
    depth(1000);
  } catch (const std::logic_error& e) {
    std::cout << "caught " << e.what() << "\n";
  }
  std::unique_ptr<Base> base = std::make_unique<Derived>();
  std::cout << (dynamic_cast<Derived*>(base.get()) != nullptr) << "\n";
  std::map<std::string, int> words;
  std::istringstream text("the cat and the dog and the bird");
  for (std::string w; text >> w;) ++words[w];
  for (auto& [w, n] : words) std::cout << w << "=" << n << " ";
  std::cout << "\n" << 3.14159 << " " << std::hex << 255 << std::dec << " " << 1e100 << "\n";
  std::cout << std::regex_replace("a1b22c333", std::regex("[0-9]+"), "#") << "\n";
  {
    std::ofstream out("/tmp/cxx-test.txt");
    for (int i = 0; i < 10000; ++i) out << i << "\n";
  }
  std::ifstream in("/tmp/cxx-test.txt");
  long sum = 0;
  for (long v; in >> v;) sum += v;
  std::cout << sum << " " << std::filesystem::file_size("/tmp/cxx-test.txt") << "\n";
  std::filesystem::remove("/tmp/cxx-test.txt");
  void* math = dlopen("libm.so.6", RTLD_NOW);
  std::cout << (math != nullptr);
  if (math) {
    auto cosine = reinterpret_cast<double (*)(double)>(dlsym(math, "cos"));
    std::cout << " " << cosine(0) << "\n";
    dlclose(math);
  }
  std::cout << (dlopen("libnot-there.so", RTLD_NOW) == nullptr) << "\n";
  std::string line;
  int lines = 0;
  while (std::getline(std::cin, line)) ++lines;
  std::cout << lines << " lines\n";
  try {
    throw 42;
  } catch (int n) {
    return n;
  }
}

// Compiled there and then by the demo: threads, exceptions and containers of the C++ library.
#include <algorithm>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

int main() {
  std::vector<long> squares(1000000);
  std::vector<std::thread> threads;
  for (size_t part = 0; part < 4; ++part)
    threads.emplace_back([&, part] {
      for (size_t i = part; i < squares.size(); i += 4) squares[i] = static_cast<long>(i * i % 1009);
    });
  for (auto& thread : threads) thread.join();
  try {
    if (std::accumulate(squares.begin(), squares.end(), 0L) % 2 == 0) throw std::runtime_error("even");
    std::cout << "odd sum\n";
  } catch (const std::exception& e) {
    std::cout << "caught: the sum is " << e.what() << "\n";
  }
  std::sort(squares.begin(), squares.end());
  std::cout << "median " << squares[squares.size() / 2] << "\n";
}

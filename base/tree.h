// Intrusive balanced tree (a treap) of objects in the order of a 64-bit key; a node can keep a summary of its subtree.
//
// For address spaces and whatever else needs "the first at or after". No allocation; O(log n) expected.
// Order gives `static u64 key(const T&)` and `static void summarise(T&)`, which recomputes a node's summary from its
// children (left(), right()). A key may change while in the tree as long as the order stays; then call changed().
#pragma once

#include "base/panic.h"
#include "base/types.h"

namespace husk {

template <typename T>
class TreeNode {
 public:
  TreeNode() = default;
  TreeNode(const TreeNode&) = delete;
  TreeNode& operator=(const TreeNode&) = delete;
  T* left() const { return left_; }
  T* right() const { return right_; }

 private:
  template <typename U, typename Order>
  friend class Tree;
  T* left_ = nullptr;
  T* right_ = nullptr;
  T* parent_ = nullptr;
  u32 priority_ = 0;
};

template <typename T, typename Order>
class Tree {
 public:
  Tree() = default;
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() { HUSK_ASSERT(root_ == nullptr); }

  bool empty() const { return root_ == nullptr; }
  T* root() const { return root_; }
  T* first() const { return root_ == nullptr ? nullptr : leftmost(root_); }
  T* last() const { return root_ == nullptr ? nullptr : rightmost(root_); }

  void insert(T* node) {
    T* parent = nullptr;
    T** link = &root_;
    while (*link != nullptr) {
      parent = *link;
      link = Order::key(*node) < Order::key(*parent) ? &parent->left_ : &parent->right_;
    }
    *link = node;
    node->parent_ = parent;
    node->left_ = node->right_ = nullptr;
    node->priority_ = next_priority();
    Order::summarise(*node);
    while (node->parent_ != nullptr && node->parent_->priority_ < node->priority_) rotate_up(node);
    changed(node);
  }

  void remove(T* node) {
    while (node->left_ != nullptr || node->right_ != nullptr) {
      bool left_wins = node->right_ == nullptr || (node->left_ != nullptr && node->left_->priority_ > node->right_->priority_);
      rotate_up(left_wins ? node->left_ : node->right_);
    }
    T* parent = node->parent_;
    *link_to(node) = nullptr;
    node->parent_ = nullptr;
    if (parent != nullptr) changed(parent);
  }

  // The node's own contribution to summaries is new.
  void changed(T* node) {
    for (; node != nullptr; node = node->parent_) Order::summarise(*node);
  }

  T* at_or_after(u64 key) const {
    T* found = nullptr;
    for (T* node = root_; node != nullptr;) {
      bool here = Order::key(*node) >= key;
      if (here) found = node;
      node = here ? node->left_ : node->right_;
    }
    return found;
  }
  T* at_or_before(u64 key) const {
    T* found = nullptr;
    for (T* node = root_; node != nullptr;) {
      bool here = Order::key(*node) <= key;
      if (here) found = node;
      node = here ? node->right_ : node->left_;
    }
    return found;
  }
  static T* next(const T* node) {
    if (node->right_ != nullptr) return leftmost(node->right_);
    const T* child = node;
    T* parent = node->parent_;
    while (parent != nullptr && parent->right_ == child) child = parent, parent = parent->parent_;
    return parent;
  }
  static T* previous(const T* node) {
    if (node->left_ != nullptr) return rightmost(node->left_);
    const T* child = node;
    T* parent = node->parent_;
    while (parent != nullptr && parent->left_ == child) child = parent, parent = parent->parent_;
    return parent;
  }

 private:
  static T* leftmost(T* node) {
    while (node->left_ != nullptr) node = node->left_;
    return node;
  }
  static T* rightmost(T* node) {
    while (node->right_ != nullptr) node = node->right_;
    return node;
  }
  T** link_to(T* node) {
    if (node->parent_ == nullptr) return &root_;
    return node->parent_->left_ == node ? &node->parent_->left_ : &node->parent_->right_;
  }
  void rotate_up(T* node) {
    T* parent = node->parent_;
    *link_to(parent) = node;
    node->parent_ = parent->parent_;
    parent->parent_ = node;
    T*& from = parent->left_ == node ? node->right_ : node->left_;
    (parent->left_ == node ? parent->left_ : parent->right_) = from;
    if (from != nullptr) from->parent_ = parent;
    from = parent;
    Order::summarise(*parent);
    Order::summarise(*node);
  }
  u32 next_priority() {  // xorshift32 (Marsaglia 2003)
    seed_ ^= seed_ << 13;
    seed_ ^= seed_ >> 17;
    return seed_ ^= seed_ << 5;
  }

  T* root_ = nullptr;
  u32 seed_ = 2463534242;
};

}  // namespace husk

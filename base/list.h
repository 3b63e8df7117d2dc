// Intrusive doubly linked list: no allocation, O(1) removal by element.
//
// An element derives from ListNode<Tag> once per list that it can be on. The list does not own.
#pragma once

#include "base/panic.h"

namespace husk {

template <typename Tag = void>
class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { HUSK_ASSERT(!is_linked()); }
  bool is_linked() const { return next_ != nullptr; }
  void unlink() {
    if (next_ == nullptr) return;
    previous_->next_ = next_;
    next_->previous_ = previous_;
    next_ = previous_ = nullptr;
  }

 private:
  template <typename T, typename U>
  friend class List;
  ListNode* next_ = nullptr;
  ListNode* previous_ = nullptr;
};

template <typename T, typename Tag = void>
class List {
  using Node = ListNode<Tag>;

 public:
  class Iterator {
   public:
    explicit Iterator(Node* node) : node_(node) {}
    T& operator*() const { return static_cast<T&>(*node_); }
    T* operator->() const { return static_cast<T*>(node_); }
    Iterator& operator++() {
      node_ = node_->next_;
      return *this;
    }
    bool operator==(const Iterator&) const = default;

   private:
    Node* node_;
  };

  List() { head_.next_ = head_.previous_ = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    HUSK_ASSERT(empty());
    head_.next_ = head_.previous_ = nullptr;
  }

  bool empty() const { return head_.next_ == &head_; }
  T* front() { return empty() ? nullptr : static_cast<T*>(head_.next_); }
  T* back() { return empty() ? nullptr : static_cast<T*>(head_.previous_); }
  void push_back(T* element) { insert_before(&head_, element); }
  void push_front(T* element) { insert_before(head_.next_, element); }
  void insert_before(T* position, T* element) { insert_before(static_cast<Node*>(position), element); }
  T* pop_front() {
    T* element = front();
    if (element != nullptr) static_cast<Node*>(element)->unlink();
    return element;
  }
  // The current element may be removed in a range-for only if the loop ends there.
  Iterator begin() { return Iterator(head_.next_); }
  Iterator end() { return Iterator(&head_); }

 private:
  void insert_before(Node* position, T* element) {
    Node* node = static_cast<Node*>(element);
    HUSK_ASSERT(!node->is_linked());
    node->next_ = position;
    node->previous_ = position->previous_;
    position->previous_->next_ = node;
    position->previous_ = node;
  }
  Node head_;
};

}  // namespace husk

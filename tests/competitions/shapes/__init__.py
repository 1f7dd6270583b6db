"""A generated competition without run lengths: which shapes does a small image show?"""

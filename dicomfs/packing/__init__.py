"""The stages of packing: plan, encode, seal, commit.  `dicomfs.packer` tells their story."""

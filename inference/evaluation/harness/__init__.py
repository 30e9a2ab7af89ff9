"""One checkpoint behind the interfaces of foreign evaluation harnesses: clips, questions, answers, likelihoods."""

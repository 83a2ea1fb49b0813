"""What is learned, how it is scored, how one cloud is predicted; the verbs finetune, evaluate, predict."""

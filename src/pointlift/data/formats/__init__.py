"""One module per family of file formats; `pointlift.data.files` chooses among them by the file's ending."""

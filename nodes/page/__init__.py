"""What only ComfyUI's page needs: routes, the progress of runs, languages, views of folders and of runs."""
